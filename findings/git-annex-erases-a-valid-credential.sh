#!/bin/sh
# If a server has nothing for git-annex, git-annex erases the credential that the server has just accepted.
#
# git-annex 10.20261026 with git 2.39.5; git-annex 10.20230126 of Debian 12 does the same. Git tells its helpers to erase a
# credential after a 401. One expects the same of git-annex, which asks git's helpers. The first git-annex command in a clone
# requests the file `config` of the remote. A server that does not know git-annex answers 404, and git-annex erases the credential
# after each answer but a success. `credential.helper=store` then no longer has the password, which all git commands use.
# git-annex's documentation says that it uses `git credential`, and not when it erases. With `remote.origin.annex-ignore=true`,
# git-annex does not send the request.
set -eu

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check git-annex==10.20261026

cat >"$folder/try.py" <<'END'
import http.server
import os
import subprocess
import sys
import threading
from pathlib import Path


class Server(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        is_allowed = self.headers.get("Authorization") == "Basic dXNlcjpzZWNyZXQ="  # user:secret
        self.send_response(status if is_allowed else 401)
        if is_allowed:
            received.append(f"{self.path} answered by {status}")
        self.send_header("WWW-Authenticate", 'Basic realm="git"')
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


received: list[str] = []
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
threading.Thread(target=server.serve_forever, daemon=True).start()
address = f"127.0.0.1:{server.server_port}"
folder = Path(os.environ["HOME"])
os.environ["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
(folder / ".gitconfig").write_text(
    "[user]\n\tname = user\n\temail = user@git.example\n"
    "[credential]\n\thelper = store\n"
    "[annex.security]\n\tallowed-ip-addresses = 127.0.0.1\n"
)
store = folder / ".git-credentials"
for command in "git ls-remote origin", "git annex info --fast":
    for status in (200, 403, 404, 503):
        received.clear()
        store.write_text(f"http://user:secret@{address}\n")
        clone = folder / f"{command} {status}"
        subprocess.run(["git", "init", "--quiet", clone], check=True)
        subprocess.run(["git", "annex", "init", "--quiet"], cwd=clone, check=True)
        subprocess.run(["git", "remote", "add", "origin", f"http://{address}/repository.git"], cwd=clone, check=True)
        subprocess.run(command.split(), cwd=clone, capture_output=True, timeout=60)
        print(f"{command}: {received[0]}; the store has", "the password" if store.read_text() else "nothing")
END
cat >"$folder/expected" <<'END'
git ls-remote origin: /repository.git/info/refs?service=git-upload-pack answered by 200; the store has the password
git ls-remote origin: /repository.git/info/refs?service=git-upload-pack answered by 403; the store has the password
git ls-remote origin: /repository.git/info/refs?service=git-upload-pack answered by 404; the store has the password
git ls-remote origin: /repository.git/info/refs?service=git-upload-pack answered by 503; the store has the password
git annex info --fast: /repository.git/config answered by 200; the store has the password
git annex info --fast: /repository.git/config answered by 403; the store has nothing
git annex info --fast: /repository.git/config answered by 404; the store has nothing
git annex info --fast: /repository.git/config answered by 503; the store has nothing
END
env -u GIT_CONFIG_GLOBAL HOME="$folder" XDG_CONFIG_HOME="$folder" GIT_CONFIG_NOSYSTEM=1 GIT_TERMINAL_PROMPT=0 \
    NO_PROXY=127.0.0.1 no_proxy=127.0.0.1 "$folder/venv/bin/python" "$folder/try.py" >"$folder/seen"

cat "$folder/seen"
diff "$folder/expected" "$folder/seen" >&2 || {
    echo "this is no longer as it was found" >&2
    exit 1
}
