"""The values that `output` remembers: their number is limited, because a broker's process runs for a long time."""

from __future__ import annotations

import threading

import pytest

from git_credential_bbjwt.core import output


@pytest.fixture(autouse=True)
def _nothing_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "_secrets", {})
    monkeypatch.setattr(output, "_warned", {})


def test_newest_secrets_are_hidden() -> None:
    output.hide("a shared secret")
    for number in range(5000):
        output.hide(f"token-{number}")
        if number % 100 == 0:
            output.hide("a shared secret")  # Each mint does this.

    assert len(output.hidden_values()) == 1000
    assert output.redacted("token-4999, a shared secret") == "[redacted], [redacted]"


def test_number_of_secrets_is_limited_with_many_threads() -> None:
    def hide(first: int) -> None:
        for number in range(2000):
            output.hide(f"token-{first}-{number}")
            output.redacted("text")

    threads = [threading.Thread(target=hide, args=(one,)) for one in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(output.hidden_values()) <= 1000


def test_warnings_are_printed_once(capfd: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        for number in range(900):
            output.warning(f"warning {number}")
    assert len(capfd.readouterr().err.splitlines()) == 900
    for number in range(5000):
        output.warning(f"other {number}")
    assert len(output._warned) <= 1000
