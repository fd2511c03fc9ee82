"""Fixtures of the https broker's tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.emulator import Emulator
from tests.https_broker import HttpsBroker, scene


@pytest.fixture
def broker(tmp_path: Path, bitbucket: Emulator) -> Iterator[HttpsBroker]:
    """A broker for one test, not started."""
    found = HttpsBroker(scene(tmp_path, bitbucket), tmp_path / "broker")
    yield found
    found.close()
