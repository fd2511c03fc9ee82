#!/bin/sh
# With pygit2, one clone with a wrong password is 14 failed logins.
#
# pygit2 1.21.0 with libgit2 1.9.7, beside git 2.39.5, which sends it once. After each 401 libgit2 calls the callback for
# credentials again, up to 15 requests, and `pygit2.UserPass`, which the documentation suggests for scripts, is a callback with
# the same answer each time. So one job with an expired token can use up the logins that a server allows. The error is "too many
# redirects or authentication replays" and names neither the 401 nor the password. https://github.com/libgit2/pygit2/issues/683
# has been open since 2016. A script can count the calls in a callback of its own.
set -eu

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check pygit2==1.21.0

cat >"$folder/try.py" <<'EOF'
import base64
import http.server
import os
import subprocess
import threading

import pygit2


class Server(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        _, _, credential = self.headers.get("Authorization", "").partition(" ")
        received.append(base64.b64decode(credential).decode() or "nothing")
        self.send_response(401)
        self.send_header("WWW-Authenticate", 'Basic realm="git"')
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def report(name: str, ended: str) -> None:
    counts = [f"{sent} ({received.count(sent)})" for sent in sorted(set(received))]
    print(f"{name} sends", " and ".join(counts) + ";", ended)
    received.clear()


received: list[str] = []
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
threading.Thread(target=server.serve_forever, daemon=True).start()
url = f"http://127.0.0.1:{server.server_port}/repository"
os.environ |= {"GIT_CONFIG_NOSYSTEM": "1", "GIT_TERMINAL_PROMPT": "0", "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
helper = "credential.helper=!echo username=user; echo password=wrong; :"
done = subprocess.run(["git", "-c", helper, "ls-remote", url], capture_output=True, text=True, timeout=20)
report("git", done.stderr.strip().replace(url, "URL"))
callbacks = pygit2.RemoteCallbacks(credentials=pygit2.UserPass("user", "wrong"))
try:
    pygit2.clone_repository(url, os.environ["HOME"] + "/clone", callbacks=callbacks)
except pygit2.GitError as problem:
    report("pygit2", str(problem))
EOF
cat >"$folder/expected" <<'EOF'
git sends nothing (1) and user:wrong (1); fatal: Authentication failed for 'URL/'
pygit2 sends nothing (1) and user:wrong (14); too many redirects or authentication replays
EOF
HOME=$folder GIT_CONFIG_GLOBAL=/dev/null "$folder/venv/bin/python" "$folder/try.py" >"$folder/seen"

cat "$folder/seen"
diff "$folder/expected" "$folder/seen" >&2 || {
    echo "this is no longer as it was found" >&2
    exit 1
}
