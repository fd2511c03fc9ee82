"""A busy machine: 200 helpers that start at once over 50 repositories."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable

from tests import tally
from tests.conftest import Workspace, finish, start


def test_200_helpers_over_50_repositories_make_50_mints(
    acme: Workspace, record_property: Callable[[str, object], None]
) -> None:
    bare = acme.bitbucket.host_repository("acme/many0")
    for number in range(1, 50):
        # One bare repository behind all of them: only their names and UUIDs matter here.
        acme.bitbucket.host_repository(f"acme/many{number}", path=bare.path)
    urls = [f"{acme.bitbucket.base_url}/acme/many{number}.git" for number in range(50)]
    started = time.monotonic()
    running: list[subprocess.Popen[bytes]] = [start(acme.machine, url) for url in urls * 4]
    answers = [finish(process) for process in running]
    seconds = time.monotonic() - started

    assert all(b"password=" in one for one in answers)
    assert acme.bitbucket.mints() == 50
    assert len(acme.bitbucket.helper_requests()) == 100
    assert len({one.split(b"password=")[1] for one in answers}) == 50
    record_property(*tally.worked_with("200 helpers at once:", f"{200 / seconds:.0f} answers per second"))
