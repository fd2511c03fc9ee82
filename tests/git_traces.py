"""Record the requests of one version of git to a credential helper: ``python -m tests.git_traces GIT``.

A trace has the requests of a clone, of a fetch, and of a fetch whose cached token the server refused. Host and tokens
are written as ``{host}``, ``{fresh}`` (the last token in an answer) and ``{state}`` (the last state in an answer).
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.emulator import Emulator

FOLDER = Path(__file__).parent / "traces"
COMMAND = Path(sys.executable).with_name("git-credential-bbjwt")

# A helper that records its requests and the real helper's answers.
_RECORDER = """#!/bin/sh
input=$(cat)
output=$(printf '%s\\n\\n' "$input" | "$BBJWT" "$1")
printf '> %s\\n%s\\n\\n' "$1" "$input" >>"$LOG"
printf '< %s\\n' "$output" >>"$ANSWERS"
printf '%s\\n' "$output"
"""


def record(git: Path) -> str:
    """Return the trace of one git."""
    with tempfile.TemporaryDirectory() as name, Emulator(Path(name) / "bitbucket") as bitbucket:
        folder = Path(name)
        app, widgets = bitbucket.install("acme"), bitbucket.host_repository("acme/widgets")
        (folder / "installation.json").write_text(json.dumps(bitbucket.payload(app)))
        (folder / "installation.json").chmod(0o600)
        (folder / "recorder").write_text(_RECORDER)
        (folder / "recorder").chmod(0o755)
        (folder / "run").mkdir(mode=0o700)
        environment = {
            "HOME": name,
            "PATH": f"{git.parent}:{os.environ['PATH']}",
            "XDG_RUNTIME_DIR": str(folder / "run"),
            "BBJWT": str(COMMAND),
            "BBJWT_INSTALLATION": str(folder / "installation.json"),
            "SSL_CERT_FILE": str(bitbucket.ca_file),
            "GIT_SSL_CAINFO": str(bitbucket.ca_file),
            "LOG": str(folder / "log"),
            "ANSWERS": str(folder / "answers"),
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_TERMINAL_PROMPT": "0",
        }

        def run(*arguments: str, check: bool = True) -> str:
            done = subprocess.run([git, *arguments], env=environment, cwd=folder, capture_output=True, text=True)
            assert done.returncode == 0 or not check, done.stderr
            return done.stdout

        run("config", "--global", f"credential.{bitbucket.base_url}.helper", str(folder / "recorder"))
        run("config", "--global", f"credential.{bitbucket.base_url}.useHttpPath", "true")
        run("clone", "-q", bitbucket.url(widgets), "w")
        run("-C", "w", "fetch", "-q")
        bitbucket.revoke_tokens()
        run("-C", "w", "fetch", "-q", check=False)
        text = (folder / "log").read_text().replace(bitbucket.host, "{host}")
        for token in bitbucket.tokens:
            text = text.replace(token, "{fresh}")
        for line in (folder / "answers").read_text().splitlines():
            if line.startswith("state[]="):
                text = text.replace(line, "state[]={state}")
        text = re.sub("password_expiry_utc=.*", "password_expiry_utc={expires}", text)
        return f"# {run('version').strip()}\n{text}"


if __name__ == "__main__":
    trace = record(Path(sys.argv[1]))
    number = trace.split("\n")[0].split()[3]
    (FOLDER / number).write_text(trace)
