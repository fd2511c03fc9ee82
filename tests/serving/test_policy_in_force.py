"""A configuration that changes while the broker runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from git_credential_bbjwt.serving import policy_in_force
from git_credential_bbjwt.serving.policy import PolicyError
from git_credential_bbjwt.serving.policy_in_force import PolicyInForce
from tests.issuer import write_policy

RULE: dict[str, Any] = {"issuer": "https://issuer.example", "claims": {"sub": "job"}, "allow": ["acme/widgets"]}
OTHER = {**RULE, "issuer": "https://other.example"}


@pytest.fixture(autouse=True)
def _no_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policy_in_force, "_BETWEEN_LOOKS", 0.0)
    monkeypatch.setattr("git_credential_bbjwt.serving.issuer_keys.FetchedKeys.begin", lambda _: None)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_policy(tmp_path / "broker.toml", RULE)


def test_change_is_in_force_and_keeps_the_keys_of_an_issuer(path: Path) -> None:
    in_force = PolicyInForce(str(path))
    before = in_force.current()
    assert in_force.current() is before

    write_policy(path, RULE, OTHER)
    after = in_force.current()
    assert after.policy.issuers == ("https://issuer.example", "https://other.example")
    assert after.keys["https://issuer.example"] is before.keys["https://issuer.example"]
    assert after.audit is before.audit

    write_policy(path, {**RULE, "keys": "https://issuer.example/keys"}, audit="none")
    again = in_force.current()
    assert set(again.keys) == {"https://issuer.example"}
    assert again.keys["https://issuer.example"] is not before.keys["https://issuer.example"]
    assert again.audit is not before.audit


@pytest.mark.parametrize("text", ["", "[[trust]]", "\0", 'audience = "x"\n', None])
def test_broken_change_leaves_the_old_configuration_in_force(
    path: Path, text: str | None, capfd: pytest.CaptureFixture[str]
) -> None:
    in_force = PolicyInForce(str(path))
    before = in_force.current()
    if text is None:
        path.unlink()
    else:
        path.write_text(text)
    for _ in range(3):
        assert in_force.current() is before
    assert capfd.readouterr().err.count("stays in force") == 1

    write_policy(path, RULE, OTHER)
    assert len(in_force.current().policy.rules) == 2
    assert capfd.readouterr().err == ""


def test_mode_that_is_corrected_is_noticed(path: Path) -> None:
    in_force = PolicyInForce(str(path))
    write_policy(path, RULE, OTHER)
    path.chmod(0o666)
    assert len(in_force.current().policy.rules) == 1
    path.chmod(0o600)
    assert len(in_force.current().policy.rules) == 2


def test_link_to_another_file_is_a_change(tmp_path: Path) -> None:
    for name, rules in (("one", [RULE]), ("two", [RULE, OTHER])):
        (tmp_path / name).mkdir()
        write_policy(tmp_path / name / "broker.toml", *rules)
    (tmp_path / "data").symlink_to("one")
    in_force = PolicyInForce(str(tmp_path / "data" / "broker.toml"))
    assert len(in_force.current().policy.rules) == 1

    (tmp_path / "new").symlink_to("two")
    (tmp_path / "new").replace(tmp_path / "data")
    assert len(in_force.current().policy.rules) == 2


def test_broken_file_at_the_start_is_an_error(path: Path) -> None:
    path.write_text("")
    with pytest.raises(PolicyError):
        PolicyInForce(str(path))
