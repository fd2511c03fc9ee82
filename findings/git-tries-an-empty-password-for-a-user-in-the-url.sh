#!/bin/sh
# If a URL has a user name, git logs in with that name and an empty password before it asks a credential helper.
#
# git 2.39.5 with libcurl 7.88.1; git 2.30.2, 2.47.3 and 2.55.0 do the same. One expects the two requests of a URL without a user
# name: one without a credential, and after the 401 one with the credential of the helper. libcurl takes the user name out of the
# URL and answers the 401 itself. So each fetch has one more request, which the server sees as a failed login. The clone URLs that
# Bitbucket shows have a user name. The manuals of git do not mention this request; it is described in
# https://github.com/git-ecosystem/git-credential-manager/issues/1341. `credential.username` names the user without
# this request. `http.proactiveAuth=basic`, tried with git 2.47.3 and 2.55.0, avoids it, too.
set -eu

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat >"$folder/try.py" <<'END'
import base64
import http.server
import os
import subprocess
import threading


class Server(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        scheme, _, credential = self.headers.get("Authorization", "").partition(" ")
        received.append(base64.b64decode(credential).decode() or "nothing")
        is_allowed = received[-1] == "user:password"
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
helper = "!echo username=user; echo password=password; :"
os.environ |= {"GIT_CONFIG_NOSYSTEM": "1", "GIT_TERMINAL_PROMPT": "0", "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
for user, settings in ("", []), ("user@", []), ("", ["-c", "credential.username=user"]):
    received.clear()
    url = f"http://{user}127.0.0.1:{server.server_port}/repository"
    subprocess.run(["git", "-c", f"credential.helper={helper}", *settings, "ls-remote", url], check=True, timeout=20)
    print(" ".join([f"http://{user}host", *settings]) + ": git sends", ", then ".join(received))
END
cat >"$folder/expected" <<'END'
http://host: git sends nothing, then user:password
http://user@host: git sends nothing, then user:, then user:password
http://host -c credential.username=user: git sends nothing, then user:password
END
HOME=$folder GIT_CONFIG_GLOBAL=/dev/null python3 "$folder/try.py" >"$folder/seen"

cat "$folder/seen"
diff "$folder/expected" "$folder/seen" >&2 || {
    echo "this is no longer as it was found" >&2
    exit 1
}
