"""One private repository, or several, until standard input ends: for the demo and the benchmark."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from tests.emulator import Emulator


def main() -> None:
    """Serve one private repository until standard input ends; print as JSON what a client needs to know."""
    with Emulator(Path(sys.argv[1])) as emulator:
        app = emulator.install("acme")
        repositories = [emulator.host_repository(f"acme/{name}") for name in sys.argv[2:] or ["widgets"]]
        known = {
            "base_url": emulator.base_url,
            "base_api_url": emulator.base_api_url,
            "ca_file": str(emulator.ca_file),
            "payload": emulator.payload(app),
            "uuids": {one.full_name: one.uuid for one in repositories},
        }
        print(json.dumps(known), flush=True)
        for line in sys.stdin:
            if line.strip() == "mints":
                print(emulator.mints(), flush=True)


if __name__ == "__main__":
    main()
