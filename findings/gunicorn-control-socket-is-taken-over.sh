#!/bin/sh
# The second gunicorn of a user takes the first one's control socket away, and removes it when it ends.
#
# gunicorn 27.0.1. By default every gunicorn opens a control socket at one path of its user ($XDG_RUNTIME_DIR or
# ~/.gunicorn/gunicorn.ctl). A second one replaces the socket without a word, so `gunicornc` reaches the second alone; after
# the second has ended, `gunicornc` reaches nobody, although the first one still serves. `--no-control-socket`, or
# `--control-socket` with a path for each, avoids it.
set -eu

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check gunicorn==27.0.1

cat >"$folder/try.py" <<'EOF'
import os
import subprocess
import sys
import time
from pathlib import Path

BIN = Path(sys.executable).parent
FOLDER = Path(os.environ["HOME"])
(FOLDER / "app.py").write_text("def application(environ, start):\n    start('200 OK', [])\n    return [b'']\n")


def start(name: str) -> subprocess.Popen:
    socket = f"unix:{FOLDER / name}"
    words = [BIN / "gunicorn", "--bind", socket, "--chdir", FOLDER, "app:application"]
    running = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
    for line in running.stderr:
        if "Control socket listening" in line:
            return running
    raise SystemExit("gunicorn ended")


def reached() -> str:
    done = subprocess.run([BIN / "gunicornc", "-c", "show all"], capture_output=True, text=True)
    for name, server in servers.items():
        if f"PID: {server.pid}\n" in done.stdout:
            return name
    return "nobody"


servers = {"first": start("first")}
print("one runs; gunicornc reaches", reached())
servers["second"] = start("second")
print("two run; gunicornc reaches", reached())
servers["second"].terminate()
servers["second"].wait()
time.sleep(0.5)
print("the first", "runs" if servers["first"].poll() is None else "ended", "on; gunicornc reaches", reached())
servers["first"].terminate()
servers["first"].wait()
EOF
cat >"$folder/expected" <<'EOF'
one runs; gunicornc reaches first
two run; gunicornc reaches second
the first runs on; gunicornc reaches nobody
EOF
HOME=$folder XDG_RUNTIME_DIR="" "$folder/venv/bin/python" "$folder/try.py" >"$folder/seen"

cat "$folder/seen"
diff "$folder/expected" "$folder/seen" >&2 || {
    echo "this is no longer as it was found" >&2
    exit 1
}
