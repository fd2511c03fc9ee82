#!/bin/sh
# If a server refuses the token in http.extraHeader, git erases the valid credential of a helper, which it did not send.
#
# git 2.39.5 with libcurl 7.88.1; git 2.30.2, 2.47.3 and 2.55.0 do the same. CI systems put a job's token into http.extraHeader as
# an Authorization header. After the token has expired, one expects that git tries the credential of a helper. Git does ask the
# helper, but a header from the user replaces libcurl's own, so the second request has the expired token again. After its 401,
# git tells the helpers to erase the credential, and git-credential-store loses a valid password. That the header replaces a
# credential is known (https://github.com/actions/checkout/issues/162). The manuals of git mention neither that nor the erasing.
# An empty http.extraHeader removes the headers that were set before it.
set -eu

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat >"$folder/try.py" <<'END'
import http.server
import os
import subprocess
import threading
from pathlib import Path


class Server(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        sent = self.headers.get_all("Authorization", ["nothing"])
        received.append(" and ".join(sent))
        is_allowed = "Basic dXNlcjpwYXNzd29yZA==" in sent  # user:password
        body = b"001e# service=git-upload-pack\n00000000" if is_allowed else b""
        self.send_response(200 if is_allowed else 401)
        self.send_header("WWW-Authenticate", 'Basic realm="git"')
        self.send_header("Content-Type", "application/x-git-upload-pack-advertisement")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


received: list[str] = []
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
threading.Thread(target=server.serve_forever, daemon=True).start()
address = f"127.0.0.1:{server.server_port}"
store = Path(os.environ["HOME"], ".git-credentials")
header = ["-c", "http.extraHeader=Authorization: Bearer expired"]
os.environ |= {"GIT_CONFIG_NOSYSTEM": "1", "GIT_TERMINAL_PROMPT": "0", "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
for settings in [], header, [*header, "-c", "http.extraHeader="]:
    received.clear()
    store.write_text(f"http://user:password@{address}\n")
    command = ["git", "-c", "credential.helper=store", *settings, "ls-remote", f"http://{address}/repository"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    print(" ".join(settings) or "no header")
    print("  git sends", ", then ".join(received))
    print("  git", "fails" if done.returncode else "succeeds")
    print("  the store has", "the password" if store.read_text() else "nothing")
END
cat >"$folder/expected" <<'END'
no header
  git sends nothing, then Basic dXNlcjpwYXNzd29yZA==
  git succeeds
  the store has the password
-c http.extraHeader=Authorization: Bearer expired
  git sends Bearer expired, then Bearer expired
  git fails
  the store has nothing
-c http.extraHeader=Authorization: Bearer expired -c http.extraHeader=
  git sends nothing, then Basic dXNlcjpwYXNzd29yZA==
  git succeeds
  the store has the password
END
HOME=$folder GIT_CONFIG_GLOBAL=/dev/null python3 "$folder/try.py" >"$folder/seen"

cat "$folder/seen"
diff "$folder/expected" "$folder/seen" >&2 || {
    echo "this is no longer as it was found" >&2
    exit 1
}
