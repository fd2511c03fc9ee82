#!/bin/sh
# If a server answers 429, a plain urllib3 request waits for as long as the server says, and its timeout does not end it.
#
# urllib3 2.8.0, beside requests 2.34.2 and httpx 0.28.1, which return the response at once. A GET that is answered by 413, 429 or
# 503 with Retry-After is sent three more times, after a sleep of that time, up to 6 hours each. One expects retries of broken
# connections alone: the documentation says that `status_forcelist`, the statuses that are retried, is empty by default. That
# Retry-After has statuses of its own is said only of `respect_retry_after_header`, which is on. `timeout` limits a connection and
# a read (https://github.com/urllib3/urllib3/issues/1338).
#
# The library `id` 1.6.1, which gets the ID token of a CI job, sends its request this way with a timeout of 30 s.
set -eu

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    urllib3==2.8.0 requests==2.34.2 httpx==0.28.1 id==1.6.1

cat >"$folder/try.py" <<'EOF'
import http.server
import os
import threading
import time

import httpx
import id
import requests
import urllib3


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        requested.append(self.path)
        self.send_response(429)
        self.send_header("Retry-After", "1")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def ask_id() -> object:
    os.environ |= {"GITHUB_ACTIONS": "true", "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "x", "ACTIONS_ID_TOKEN_REQUEST_URL": url}
    try:
        return id.detect_credential("audience")
    except id.AmbientCredentialError as problem:
        return str(problem).split(", ")[0].split("(")[1]


requested: list[str] = []
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
url = f"http://127.0.0.1:{server.server_port}/"
for name, ask in {
    "urllib3, timeout 0.5 s": lambda: urllib3.request("GET", url, timeout=0.5).status,
    "requests, timeout 0.5 s": lambda: requests.get(url, timeout=0.5).status_code,
    "httpx, timeout 0.5 s": lambda: httpx.get(url, timeout=0.5).status_code,
    "id": ask_id,
}.items():
    requested.clear()
    began = time.monotonic()
    answer = ask()
    print(f"{name}: {answer} after {len(requested)} requests in {time.monotonic() - began:.0f} s")
EOF
cat >"$folder/expected" <<'EOF'
urllib3, timeout 0.5 s: 429 after 4 requests in 3 s
requests, timeout 0.5 s: 429 after 1 requests in 0 s
httpx, timeout 0.5 s: 429 after 1 requests in 0 s
id: code=429 after 4 requests in 3 s
EOF
env -u http_proxy -u HTTP_PROXY -u all_proxy -u ALL_PROXY HOME="$folder" \
    "$folder/venv/bin/python" "$folder/try.py" >"$folder/seen"

cat "$folder/seen"
diff "$folder/expected" "$folder/seen" >&2 || {
    echo "this is no longer as it was found" >&2
    exit 1
}
