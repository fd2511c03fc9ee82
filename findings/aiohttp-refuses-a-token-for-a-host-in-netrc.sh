#!/bin/sh
# If ~/.netrc has an entry for the host, aiohttp raises a ValueError for a request with an Authorization header.
#
# aiohttp 3.14.5, beside httpx 0.28.1 and niquests 3.21.2, which send the header, and requests 2.34.2, which replaces it by the
# entry. `trust_env=True` makes a session use the proxies of the environment and, which its documentation mentions, ~/.netrc. One
# expects that the caller's own header comes first. The error says that the header cannot be combined with an AUTH argument or
# credentials in the URL, although the caller gave neither. CI jobs write ~/.netrc for git, and then a client that
# sends a token to the same host's API works on a laptop and fails in the job.
set -eu

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    aiohttp==3.14.5 httpx==0.28.1 niquests==3.21.2 requests==2.34.2

cat >"$folder/try.py" <<'EOF'
import asyncio
import http.server
import os
import threading
from pathlib import Path

import aiohttp
import httpx
import niquests
import requests


class Server(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        received.append(self.headers["Authorization"])
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


async def ask_aiohttp() -> None:
    async with aiohttp.ClientSession(trust_env=True, headers=HEADERS) as session, session.get(url):
        pass


HEADERS = {"Authorization": "Bearer token"}
received: list[str] = []
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
threading.Thread(target=server.serve_forever, daemon=True).start()
url = f"http://127.0.0.1:{server.server_port}/"
os.environ |= {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
netrc = Path(os.environ["HOME"], ".netrc")
for entry in ("", "machine 127.0.0.1 login user password password\n"):
    netrc.write_text(entry)
    netrc.chmod(0o600)
    print("netrc:", entry.strip() or "empty")
    for name, ask in {
        "aiohttp": lambda: asyncio.run(ask_aiohttp()),
        "httpx": lambda: httpx.get(url, headers=HEADERS),
        "niquests": lambda: niquests.get(url, headers=HEADERS),
        "requests": lambda: requests.get(url, headers=HEADERS),
    }.items():
        try:
            ask()
            print(f"  {name} sends", received.pop())
        except ValueError as problem:
            print(f"  {name}:", problem)
EOF
cat >"$folder/expected" <<'EOF'
netrc: empty
  aiohttp sends Bearer token
  httpx sends Bearer token
  niquests sends Bearer token
  requests sends Bearer token
netrc: machine 127.0.0.1 login user password password
  aiohttp: Cannot combine AUTHORIZATION header with AUTH argument or credentials encoded in URL
  httpx sends Bearer token
  niquests sends Bearer token
  requests sends Basic dXNlcjpwYXNzd29yZA==
EOF
env -u NETRC HOME="$folder" "$folder/venv/bin/python" "$folder/try.py" >"$folder/seen"

cat "$folder/seen"
diff "$folder/expected" "$folder/seen" >&2 || {
    echo "this is no longer as it was found" >&2
    exit 1
}
