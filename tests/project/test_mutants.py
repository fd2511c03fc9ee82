"""The list of changes that change nothing: an entry that fits no change would excuse none, and nobody would know."""

from __future__ import annotations

import pytest

from tests.mutants import CHANGE_NOTHING, mutants_of


@pytest.mark.parametrize("room", CHANGE_NOTHING)
def test_what_is_listed_is_a_change_there_is(room: str) -> None:
    assert set(CHANGE_NOTHING[room]) <= {one.after for one in mutants_of(room)}
