"""Serve a workspace with some private repositories until standard input ends, for the benchmark."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

from tests.emulator import Emulator, HostedRepository


def main() -> None:
    """Serve acme until standard input ends; print as JSON everything that a client needs."""
    parser = argparse.ArgumentParser(prog="python -m tests.emulator")
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", nargs="+", help="repositories")
    parser.add_argument("--submodules", type=int, default=0, help="also `super`, with that many of them as submodules")
    arguments = parser.parse_args()
    with Emulator(arguments.folder) as emulator:
        app = emulator.install("acme")
        bare = emulator.host_repository(f"acme/{arguments.names[0]}")
        # Only names and UUIDs of the others matter.
        others = [emulator.host_repository(f"acme/{name}", path=bare.path) for name in arguments.names[1:]]
        if arguments.submodules:
            add_submodules(emulator, emulator.host_repository("acme/super"), others[: arguments.submodules])
        known = {
            "base_url": emulator.base_url,
            "base_api_url": emulator.base_api_url,
            "ca_file": str(emulator.ca_file),
            "payload": emulator.payload(app),
            "uuids": {one.full_name: one.uuid for one in emulator.repositories},
        }
        print(json.dumps(known), flush=True)
        for line in sys.stdin:
            if line.strip() == "mints":
                print(emulator.mints(), flush=True)


def add_submodules(emulator: Emulator, whole: HostedRepository, parts: list[HostedRepository]) -> None:
    """Commit submodules to a repository."""
    environment = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "GIT_CONFIG_NOSYSTEM": "1"}
    git = ["git", "--git-dir", str(whole.path)]
    head = ["git", "--git-dir", str(parts[0].path), "rev-parse", "main"]
    commit = subprocess.run(head, capture_output=True, text=True, check=True, env=environment).stdout.strip()
    modules = "".join(f'[submodule "{one.slug}"]\n\tpath = {one.slug}\n\turl = {emulator.url(one)}\n' for one in parts)
    story = "commit refs/heads/main\ncommitter E <e@example.invalid> 1700000000 +0000\ndata 5\nParts\n"
    story += f"from refs/heads/main^0\nM 100644 inline .gitmodules\ndata {len(modules)}\n{modules}\n"
    story += "".join(f"M 160000 {commit} {one.slug}\n" for one in parts)
    subprocess.run([*git, "fast-import", "--quiet"], input=story.encode(), check=True, env=environment)


if __name__ == "__main__":
    main()
