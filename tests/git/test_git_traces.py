"""Recorded requests of each generation of git, replayed for machines that do not have it."""

from __future__ import annotations

import pytest

from tests.conftest import Workspace, answer
from tests.git_traces import FOLDER


@pytest.mark.parametrize("version", sorted(path.name for path in FOLDER.iterdir()))
def test_a_recorded_git_is_answered_as_it_understands(acme: Workspace, version: str) -> None:
    known = {"{host}": acme.bitbucket.host, "{fresh}": "", "{state}": "", "{expires}": ""}
    parts = (FOLDER / version).read_text().split("> ")[1:]
    understands_state = "capability[]=state" in parts[0]
    answers: list[dict[str, str]] = []
    for part in parts:
        operation, _, data = part.partition("\n")
        for mark, value in known.items():
            data = data.replace(mark, value)
        if len(answers) == 2:
            # From here on the server refuses the cached token.
            acme.bitbucket.revoke_tokens()
        done = acme.machine.bbjwt(operation, data=data)
        assert done.stderr == ""
        if operation != "get":
            assert done.stdout == ""
            continue
        found = answer(done)
        answers.append(found)
        known |= {"{fresh}": found["password"], "{expires}": found["password_expiry_utc"]}
        known["{state}"] = found.get("state[]", "")
    first, cached, stale, *fresh = answers

    assert first["password"] == cached["password"] == stale["password"]
    assert ("continue" in cached) == ("continue" in stale) == understands_state
    assert "continue" not in first
    if understands_state:
        # Git asks again within the same command and gets a new token.
        assert fresh[0]["password"] != stale["password"]
        assert "continue" not in fresh[0]
    else:
        # Git has erased the token, so the next command gets another token.
        assert acme.machine.records() == []
        assert answer(acme.get())["password"] != stale["password"]
    assert acme.bitbucket.mints() == 2
