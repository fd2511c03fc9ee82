#!/bin/sh
# If a server redirects only after the login, git follows the redirect once and then fails with "HTTP 301".
#
# git 2.39.5; git 2.47.3 and 2.55.0 do the same. git-config(1) says of http.followRedirects that git follows the redirect of the
# initial request and uses the redirected URL as the base for all further ones. One expects this of a renamed private repository,
# too, whose server does not show a stranger the new name. Git asks for a credential after the 401, follows the redirect of
# its second request, and reads the refs at the new URL. But it looks for a redirect only after its first request, so it sends
# the POST to the old URL, where it accepts no redirect. The error names neither URL. Helpers are told to store the credential
# for the old path. With http.followRedirects=true, which follows every redirect, the clone works. Gitea answered in this
# way (https://github.com/go-gitea/gitea/issues/28460, closed).
set -eu

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
export HOME="$folder" XDG_CONFIG_HOME="$folder" GIT_CONFIG_NOSYSTEM=1 GIT_TERMINAL_PROMPT=0
unset GIT_CONFIG_GLOBAL GIT_ASKPASS SSH_ASKPASS
cd "$folder"
cat >helper <<'END'
#!/bin/sh
{ echo "$1"; grep ^path=; } | paste -sd ' ' >>"$HOME/asked"
if [ "$1" = get ]; then printf 'username=user\npassword=secret\n'; fi
END
chmod +x helper
cat >.gitconfig <<END
[user]
	name = user
	email = user@git.example
[init]
	defaultBranch = main
[credential]
	useHttpPath = true
	helper = $folder/helper
END
git init --quiet source
git -C source commit --quiet --allow-empty --message first
git clone --quiet --bare source new.git

cat >try.py <<'END'
import http.server
import os
import subprocess
import threading
from pathlib import Path


class Server(http.server.BaseHTTPRequestHandler):
    """Serve new.git by git http-backend and redirect from old.git to it."""

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path, _, query = self.path.partition("?")
        is_known = self.headers.get("Authorization") == "Basic dXNlcjpzZWNyZXQ="  # user:secret
        is_moved = path.startswith("/old.git") and (is_known or not is_hidden)
        status = 301 if is_moved else 200 if is_known else 401
        received.append(f"{self.command} {path.split('/')[1]} {status}")
        self.send_response_only(status)
        if status == 301:
            self.send_header("Location", self.path.replace("old.git", "new.git"))
        if status == 401:
            self.send_header("WWW-Authenticate", 'Basic realm="git"')
        if status != 200:
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        variables = {
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "REQUEST_METHOD": self.command,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
            "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
            "GIT_PROJECT_ROOT": os.environ["HOME"],
            "GIT_HTTP_EXPORT_ALL": "1",
        }
        backend = subprocess.run(["git", "http-backend"], env=os.environ | variables, input=body, capture_output=True)
        self.flush_headers()
        self.wfile.write(backend.stdout)

    do_POST = do_GET

    def log_message(self, *_: object) -> None:
        pass


received: list[str] = []
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
threading.Thread(target=server.serve_forever, daemon=True).start()
url = f"http://127.0.0.1:{server.server_port}/old.git"
asked = Path("asked")
for is_hidden, follow in (False, "initial"), (True, "initial"), (True, "true"):
    received.clear()
    asked.write_text("")
    clone = f"clone {is_hidden} {follow}"
    done = subprocess.run(
        ["git", "-c", f"http.followRedirects={follow}", "clone", url, clone], capture_output=True, text=True, timeout=60
    )
    print("redirects after the login" if is_hidden else "redirects at once", f"with followRedirects={follow}:")
    print("  git sends", ", ".join(received))
    print("  the helper runs with", ", ".join(asked.read_text().splitlines()))
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    print(" ", *(errors or ["cloned"] if done.returncode == 0 or errors else ["failed"]))
END
cat >expected <<'END'
redirects at once with followRedirects=initial:
  git sends GET old.git 301, GET new.git 401, GET new.git 200, POST new.git 200, POST new.git 200
  the helper runs with get path=new.git, store path=new.git
  cloned
redirects after the login with followRedirects=initial:
  git sends GET old.git 401, GET old.git 301, GET new.git 200, POST old.git 301
  the helper runs with get path=old.git, store path=old.git
  error: RPC failed; HTTP 301 curl 22 The requested URL returned error: 301
redirects after the login with followRedirects=true:
  git sends GET old.git 401, GET old.git 301, GET new.git 200, POST old.git 301, POST new.git 200, POST old.git 301, POST new.git 200
  the helper runs with get path=old.git, store path=old.git
  cloned
END
NO_PROXY=127.0.0.1 no_proxy=127.0.0.1 python3 try.py >seen

cat seen
diff expected seen >&2 || {
    echo "this is no longer as it was found" >&2
    exit 1
}
