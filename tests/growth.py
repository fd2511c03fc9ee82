"""What the commands cost as the work grows: with 1 to 100,000 installations registered and as many tokens kept.

Whole processes, in turn over all sizes in one run, as medians and as ratios to what they cost with one.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from git_credential_bbjwt.system.private_folder import PrivateFolder
from git_credential_bbjwt.tokens.cache import TokenCache
from tests.properties import whole_record

#: The sizes; the largest takes some minutes to set up.
SIZES = tuple(int(size) for size in os.environ.get("BBJWT_BENCHMARK_SIZES", "1 1000 10000 100000").split())

_BAR = 40


class Grown:
    """A machine with so many installations registered, in files, and so many tokens kept."""

    def __init__(
        self, folder: Path, command: str, size: int, payload: dict[str, Any], environment: dict[str, str]
    ) -> None:
        home, runtime = folder / "home", folder / "run"
        home.mkdir(parents=True)
        runtime.mkdir(mode=0o700)
        self._command = command
        self._payload = payload
        self.size = size
        self.environment = environment | {
            "HOME": str(home),
            "XDG_RUNTIME_DIR": str(runtime),
            "XDG_CONFIG_DIRS": str(folder / "etc"),
        }
        self.run("register", "--insecure-storage", "-", data="\n".join(self._payloads()))
        _fill_cache(runtime / "git-credential-bbjwt", size)

    def _payloads(self) -> Iterator[str]:
        yield json.dumps(self._payload)
        for number in range(1, self.size):
            yield json.dumps(another(self._payload, f"team{number}"))

    def run(self, *words: str, data: str = "") -> float:
        """Run the command; return its seconds."""
        started = time.perf_counter()
        done = subprocess.run([self._command, *words], input=data.encode(), capture_output=True, env=self.environment)
        seconds = time.perf_counter() - started
        assert done.returncode == 0, done.stderr.decode()
        return seconds


def another(payload: dict[str, Any], workspace: str) -> dict[str, Any]:
    """The payload of the same app on another workspace."""
    workspace_uuid = f"{{{uuid.uuid4()}}}"
    principal = payload["principal"] | {"uuid": workspace_uuid, "username": workspace}
    client_key = f"ari:cloud:bitbucket::app/{workspace_uuid}/{payload['key']}"
    return payload | {"principal": principal, "user": principal, "clientKey": client_key}


def _fill_cache(path: Path, size: int) -> None:
    folder = PrivateFolder(str(path), create=True)
    cache = TokenCache(folder, folder, folder)
    now = int(time.time())
    for number in range(1, size):
        record = whole_record(f"team{number}", minted=now, expires=now + 7200)
        cache.slot(record.repository, record.scope, record.app).keep(record)


def measure(
    folder: Path, command: str, payload: dict[str, Any], environment: dict[str, str], request: str, runs: int
) -> None:
    """Measure at each size, and print a table and its curves."""
    machines = [Grown(folder / str(size), command, size, payload, environment) for size in SIZES]
    extra = json.dumps(another(payload, "one-more"))
    foreign = request.replace(request.splitlines()[1], "host=github.com")
    cases: dict[str, Callable[[Grown], float]] = {
        "get, cached": lambda machine: machine.run("get", data=request),
        "get, foreign host": lambda machine: machine.run("get", data=foreign),
        "mint": lambda machine: (machine.run("erase", data=request), machine.run("get", data=request))[1],
        "register one more": lambda machine: machine.run("register", "--insecure-storage", "-", data=extra),
        "unregister one": lambda machine: machine.run("unregister", "one-more"),
    }
    times: dict[str, dict[int, list[float]]] = {name: {size: [] for size in SIZES} for name in cases}
    for number in range(runs + 1):
        for name, case in cases.items():
            for machine in machines:
                seconds = case(machine)
                if number:
                    times[name][machine.size].append(seconds)
    times["list"] = {machine.size: [machine.run("list")] for machine in machines}
    print(f"\nGrowth: installations and kept tokens (medians of {runs} whole processes, in turn)")
    for name, by_size in times.items():
        medians = {size: statistics.median(measured) for size, measured in by_size.items()}
        longest = max(medians.values())
        for size, median in medians.items():
            bar = "#" * max(1, round(median / longest * _BAR))
            ratio = median / medians[SIZES[0]]
            print(f"  {name:<18}{size:>8}{median * 1000:9.1f} ms {ratio:7.2f} x  {bar}")
