#!/bin/sh
# pre-commit clones the hooks' repositories without the git configuration that GIT_CONFIG_GLOBAL names.
#
# pre-commit 4.7.0 with git 2.39.5. CI jobs set GIT_CONFIG_GLOBAL to give git a credential helper without a change of
# ~/.gitconfig. One expects that a hook's repository is cloned as `git clone` clones it. pre-commit removes the variables that
# begin with GIT_ from the environment of git, except those of a list. The list has GIT_ASKPASS and GIT_CONFIG_COUNT, but neither
# GIT_CONFIG_GLOBAL nor GIT_CONFIG_SYSTEM, so git does not ask the helper. GIT_TERMINAL_PROMPT=0 is removed, too: on a terminal,
# git then waits for a user name. The documentation does not mention the list. It has grown by one variable after another, for
# example in https://github.com/pre-commit/pre-commit/pull/2564.
set -eu

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check pre-commit==4.7.0

cat >"$folder/try.py" <<'END'
import http.server
import os
import subprocess
import sys
import threading
from pathlib import Path


class Server(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(401)
        self.send_header("WWW-Authenticate", 'Basic realm="git"')
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
threading.Thread(target=server.serve_forever, daemon=True).start()
url = f"http://127.0.0.1:{server.server_port}/hooks.git"
folder = Path(os.environ["HOME"])
asked = folder / "asked"
config = folder / "config"
helper = f"!echo GIT_TERMINAL_PROMPT=$GIT_TERMINAL_PROMPT >>'{asked}'; echo quit=1; :"
subprocess.run(["git", "config", "--file", config, "credential.helper", helper], check=True)
(folder / "home").mkdir()
(folder / "home/.gitconfig").write_bytes(config.read_bytes())
project = folder / "project"
subprocess.run(["git", "init", "--quiet", project], check=True)
(project / ".pre-commit-config.yaml").write_text(f"repos: [{{repo: '{url}', rev: v1, hooks: [{{id: hook}}]}}]\n")
programs = {
    "git": ["git", "ls-remote", url],
    "pre-commit": [Path(sys.executable).parent / "pre-commit", "install-hooks"],
}
for name, settings in {
    "GIT_CONFIG_GLOBAL": {"GIT_CONFIG_GLOBAL": str(config)},
    "GIT_CONFIG_SYSTEM": {"GIT_CONFIG_SYSTEM": str(config), "GIT_CONFIG_NOSYSTEM": "0"},
    "GIT_CONFIG_COUNT": {
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": "include.path",
        "GIT_CONFIG_VALUE_0": str(config),
    },
    "HOME": {"HOME": str(folder / "home")},
}.items():
    for program, command in programs.items():
        asked.unlink(missing_ok=True)
        subprocess.run(
            command,
            cwd=project,
            env=os.environ | {"GIT_TERMINAL_PROMPT": "0", "PRE_COMMIT_HOME": str(folder / "cache")} | settings,
            capture_output=True,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            timeout=60,
        )
        answer = "helper asked; " + asked.read_text().split("\n")[0] if asked.exists() else "helper not asked"
        print(f"{name}, {program}: {answer}")
END
cat >"$folder/expected" <<'END'
GIT_CONFIG_GLOBAL, git: helper asked; GIT_TERMINAL_PROMPT=0
GIT_CONFIG_GLOBAL, pre-commit: helper not asked
GIT_CONFIG_SYSTEM, git: helper asked; GIT_TERMINAL_PROMPT=0
GIT_CONFIG_SYSTEM, pre-commit: helper not asked
GIT_CONFIG_COUNT, git: helper asked; GIT_TERMINAL_PROMPT=0
GIT_CONFIG_COUNT, pre-commit: helper asked; GIT_TERMINAL_PROMPT=
HOME, git: helper asked; GIT_TERMINAL_PROMPT=0
HOME, pre-commit: helper asked; GIT_TERMINAL_PROMPT=
END
env -u GIT_CONFIG_GLOBAL -u GIT_CONFIG_COUNT HOME="$folder" NO_PROXY=127.0.0.1 no_proxy=127.0.0.1 \
    "$folder/venv/bin/python" "$folder/try.py" >"$folder/seen"

cat "$folder/seen"
diff "$folder/expected" "$folder/seen" >&2 || {
    echo "this is no longer as it was found" >&2
    exit 1
}
