"""A busy machine: many helpers that start at once for several repositories."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable

from tests import tally
from tests.conftest import EVERYTHING, Workspace, finish, start

#: The number of repositories. Four helpers start for each.
REPOSITORIES = 50 if EVERYTHING else 10


def test_four_helpers_at_once_for_each_repository_make_one_mint_each(
    acme: Workspace, record_property: Callable[[str, object], None]
) -> None:
    bare = acme.bitbucket.host_repository("acme/many0")
    for number in range(1, REPOSITORIES):
        # All have the same bare repository, because only their names and UUIDs matter here.
        acme.bitbucket.host_repository(f"acme/many{number}", path=bare.path)
    urls = [f"{acme.bitbucket.base_url}/acme/many{number}.git" for number in range(REPOSITORIES)]
    started = time.monotonic()
    running: list[subprocess.Popen[bytes]] = [start(acme.machine, url) for url in urls * 4]
    answers = [finish(process) for process in running]
    seconds = time.monotonic() - started

    assert all(b"password=" in one for one in answers)
    assert acme.bitbucket.mints() == REPOSITORIES
    assert len(acme.bitbucket.helper_requests()) == 2 * REPOSITORIES
    assert len({one.split(b"password=")[1] for one in answers}) == REPOSITORIES
    record_property(*tally.worked_with("helpers at once, answers per second:", f"{len(running) / seconds:.0f}"))
