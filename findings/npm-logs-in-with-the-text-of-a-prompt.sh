#!/bin/sh
# If no credential helper has a credential, npm logs in with the text of git's prompts as user name and password.
#
# npm 11.21.2 with git 2.39.5, beside pnpm 12.21.0 and yarn 1.22.22, which send no login. One expects that an install without a
# credential ends after the 401. So that git does not prompt, npm runs it with GIT_ASKPASS=echo, unless the user has set an
# askpass program. `echo` succeeds, and git takes the prompt that it prints for the answer. The server sees a failed login of the
# user "Username for …", and the helpers have to erase a credential that none of them gave. npm's documentation says that
# GIT_ASKPASS is passed to git, and not that npm sets it. With `GIT_ASKPASS=false`, npm sends no login. Bun 1.4.5 sends the text,
# too, and so does Composer 2.5.5, even if GIT_ASKPASS is set (https://github.com/composer/composer/issues/7084, which takes the
# answer of echo for empty).
#
# Needs node and npm.
set -eu

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
unset GIT_ASKPASS SSH_ASKPASS
export HOME="$folder" GIT_CONFIG_NOSYSTEM=1 GIT_CONFIG_GLOBAL="$folder/.gitconfig"
npm install --silent --no-audit --no-fund --prefix "$folder" npm@11.21.2 pnpm@12.21.0 yarn@1.22.22 >/dev/null

cat >"$folder/.gitconfig" <<'END'
[credential]
	helper = "!f() { { echo $1; cat; echo; } >>\"$HOME/helper\"; }; f"
END
cat >"$folder/try.py" <<'END'
import base64
import http.server
import os
import subprocess
import threading
from pathlib import Path


class Server(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        _, _, credential = self.headers.get("Authorization", "").partition(" ")
        user, _, _ = base64.b64decode(credential).decode().partition(":Password for ")
        received.append(user.replace(address, "HOST").strip() or "no credential")
        self.send_response(401)
        self.send_header("WWW-Authenticate", 'Basic realm="git"')
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


received: list[str] = []
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
threading.Thread(target=server.serve_forever, daemon=True).start()
address = f"127.0.0.1:{server.server_port}"
folder = Path(os.environ["HOME"])
os.environ |= {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1", "GIT_TERMINAL_PROMPT": "0"}
for name, command, settings in (
    ("npm", "install", {}),
    ("npm", "install", {"GIT_ASKPASS": "false"}),
    ("pnpm", "add", {}),
    ("yarn", "add", {}),
):
    received.clear()
    project = folder / "project"
    project.mkdir(exist_ok=True)
    (project / "package.json").write_text('{"name": "project", "version": "1.0.0"}')
    (folder / "helper").write_text("")
    program = folder / "node_modules" / ".bin" / name
    subprocess.run(
        [program, command, f"git+http://{address}/repository.git"],
        cwd=project,
        env=os.environ | settings,
        capture_output=True,
        stdin=subprocess.DEVNULL,
        timeout=60,
    )
    print(*(f"{key}={value}" for key, value in settings.items()), name, "sends:")
    for user in dict.fromkeys(received):
        print("  ", user)
    for request in (folder / "helper").read_text().replace(address, "HOST").split("\n\n"):
        erased = [line.strip() for line in request.split("\n") if line == "erase" or line.startswith("username=")]
        if "erase" in erased:
            print("   and the helper gets", *erased)
END
cat >"$folder/expected" <<'END'
npm sends:
   no credential
   Username for 'http://HOST':
   and the helper gets erase username=Username for 'http://HOST':
GIT_ASKPASS=false npm sends:
   no credential
pnpm sends:
   no credential
yarn sends:
   no credential
END
python3 "$folder/try.py" >"$folder/seen"

cat "$folder/seen"
diff "$folder/expected" "$folder/seen" >&2 || {
    echo "this is no longer as it was found" >&2
    exit 1
}
