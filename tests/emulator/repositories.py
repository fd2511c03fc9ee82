"""Bare repositories with one commit."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import tempfile
from pathlib import Path


def make_bare_repository(path: Path, files: dict[str, str]) -> None:
    """Make a bare repository with one commit, on main, that holds ``files``."""
    template = Path(_template(tuple(files.items())).name) / "template"
    shutil.copytree(template, path)


@functools.cache
def _template(files: tuple[tuple[str, str], ...]) -> tempfile.TemporaryDirectory[str]:
    """Return a folder with the repository ``template``. A copy is three times as fast as running git each time."""
    folder = tempfile.TemporaryDirectory()
    path = Path(folder.name) / "template"
    environment = {"PATH": os.environ["PATH"], "HOME": str(path.parent), "GIT_CONFIG_NOSYSTEM": "1"}
    # Git 3.0 has other defaults, which the tests' clients may not support.
    environment |= {"GIT_DEFAULT_HASH": "sha1", "GIT_DEFAULT_REF_FORMAT": "files"}
    subprocess.run(["git", "init", "-q", "--bare", "--template=", path], check=True, env=environment)
    (path / "HEAD").write_text("ref: refs/heads/main\n")
    with (path / "config").open("a") as config:
        # The emulator decides on pushes before http-backend sees the request.
        config.write("[http]\n\treceivepack = true\n[uploadpack]\n\tallowFilter = true\n\tallowAnySHA1InWant = true\n")
        # 'Command "git archive" failure due to "operation not supported by protocol" error': https does not support it.
        config.write("[http]\n\tuploadarchive = false\n")
    commit = "commit refs/heads/main\ncommitter Emulator <emulator@example.invalid> 1700000000 +0000\ndata 5\nFirst\n"
    for name, text in files:
        commit += f"M 100644 inline {name}\ndata {len(text.encode())}\n{text}\n"
    # With safe.bareRepository=explicit, git 3.0's default, a bare repository is found by --git-dir alone.
    importing = ["git", "--git-dir", str(path), "fast-import", "--quiet"]
    subprocess.run(importing, input=commit.encode(), check=True, env=environment)
    return folder
