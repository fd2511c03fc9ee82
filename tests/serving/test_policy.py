"""The https broker's configuration: settings, the claims that a rule matches, rules that would trust everybody."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from git_credential_bbjwt.serving.claims import check_claims, difference, matches
from git_credential_bbjwt.serving.policy import Policy, PolicyError, read_policy
from tests.issuer import AUDIENCE, write_policy

GITHUB, GITLAB, BUILDKITE = (
    "https://token.actions.githubusercontent.com",
    "https://gitlab.com",
    "https://agent.buildkite.com",
)
RULE = {"issuer": "https://issuer.example", "claims": {"sub": "job"}, "allow": ["acme/widgets"]}

EXAMPLE = """\
audience = "https://broker.example"   # a comment

[[trust]]
issuer = "https://token.actions.githubusercontent.com"
claims = { repository_id = "74", ref = "refs/heads/main", event_name = "push" }
allow  = ["acme/widgets", "acme/lib-*"]

[[trust]]
name   = "cluster"
issuer = "https://kubernetes.default.svc.cluster.local"
keys   = "/etc/git-credential-bbjwt/cluster-jwks.json"
claims = { "kubernetes.io" = { namespace = "ci", serviceaccount = { name = "builder" } } }
allow  = ["acme/*"]
"""


def read(tmp_path: Path, text: str) -> Policy:
    path = tmp_path / "broker.toml"
    path.write_text(text)
    path.chmod(0o600)
    return read_policy(str(path))


def test_example_of_the_operators_page_is_accepted(tmp_path: Path) -> None:
    policy = read(tmp_path, EXAMPLE)

    assert policy.audiences == (AUDIENCE,)
    assert [rule.name for rule in policy.rules] == ["rule 1", "cluster"]
    assert [rule.line for rule in policy.rules] == [3, 8]
    assert [str(pattern) for pattern in policy.rules[0].allow] == ["acme/widgets", "acme/lib-*"]
    assert policy.keys == {
        "https://kubernetes.default.svc.cluster.local": "/etc/git-credential-bbjwt/cluster-jwks.json"
    }
    assert (policy.options.scope, policy.audit, policy.options.timeout, policy.per_minute) == (
        "repository",
        "-",
        45.0,
        600,
    )
    assert not policy.whole_workspace


def test_each_setting(tmp_path: Path) -> None:
    path = write_policy(
        tmp_path / "broker.toml",
        {**RULE, "audience": "https://old.example"},
        audience=["https://new.example", "https://old.example"],
        installation="/etc/bitbucket.json",
        installation_command="vault kv get x",
        hosts=["Bitbucket.org:443"],
        scope="pullrequest",
        app="an-app",
        audit="/var/log/bbjwt.log",
        timeout=12.5,
        per_minute=7,
        whole_workspace=True,
    )
    policy = read_policy(str(path))

    assert policy.audiences == ("https://new.example", "https://old.example")
    assert policy.rules[0].audiences == ("https://old.example",)
    assert policy.options.installation == "/etc/bitbucket.json"
    assert policy.options.hosts == ("bitbucket.org",)
    assert policy.options.timeout == 12.5
    assert (policy.options.scope, policy.options.app, policy.audit) == ("pullrequest", "an-app", "/var/log/bbjwt.log")
    assert (policy.per_minute, policy.whole_workspace) == (7, True)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"audience": []}, "audience must be"),
        ({"audience": 1}, "audience must be"),
        ({"audience": " "}, "audience must be"),
        ({"audience": ["https://a.example", 1]}, "audience must be"),
        ({"hosts": "bitbucket.org"}, "hosts must be a list"),
        ({"hosts": ["bitbucket.org/acme"]}, "hosts"),
        ({"installation": "payload.json"}, "absolute path"),
        ({"scope": 'a"b'}, "scope"),
        ({"scope": True}, "scope must be"),
        ({"timeout": "45"}, "timeout must be a number"),
        ({"timeout": True}, "timeout must be a number"),
        ({"timeout": 0}, "timeout must be a number"),
        ({"per_minute": 0}, "per_minute must be an integer"),
        ({"per_minute": 1.5}, "per_minute must be an integer"),
        ({"whole_workspace": "yes"}, "whole_workspace must be true or false"),
        ({"audit": "log.txt"}, "audit must be"),
        ({"trusted": True}, "no such setting: trusted"),
        ({"secret\x1b[31m": True}, "no such setting: one of them"),
    ],
)
def test_setting_that_cannot_be_used_is_named(tmp_path: Path, settings: dict[str, Any], words: str) -> None:
    path = write_policy(tmp_path / "broker.toml", RULE, **settings)
    with pytest.raises(PolicyError) as caught:
        read_policy(str(path))

    assert words in caught.value.what
    assert str(tmp_path / "broker.toml") in caught.value.what


@pytest.mark.parametrize("setting", ["per_minute = 0", "trusted = 1", "[trusted]", '"scope" = 1', "[audit]"])
def test_setting_that_cannot_be_used_is_named_with_its_line(tmp_path: Path, setting: str) -> None:
    with pytest.raises(PolicyError, match=r"broker\.toml, line 2: "):
        read(tmp_path, EXAMPLE.replace("\n\n", f"\n{setting}\n", 1))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"issuer": "http://issuer.example"}, "https URL"),
        ({"issuer": "https://user@issuer.example"}, "https URL"),
        ({"issuer": "https://issuer.example?x=1"}, "https URL"),
        ({"issuer": "https://issuer.example#x"}, "https URL"),
        ({"issuer": "https://"}, "https URL"),
        ({"issuer": "https://issuer.example:port"}, "https URL"),
        ({"issuer": "https://issüer.example"}, "https URL"),
        ({"issuer": None}, "issuer is missing"),
        ({"claims": None}, "claims is missing"),
        ({"claims": "sub"}, "claims must be a table"),
        ({"claims": {}}, "claims is empty"),
        ({"allow": None}, "allow is missing"),
        ({"allow": []}, "allow must be"),
        ({"allow": "acme/widgets"}, "allow must be"),
        ({"allow": ["*/widgets"]}, "allow"),
        ({"allow": ["acme"]}, "allow"),
        ({"keys": "keys.json"}, "keys must be"),
        ({"keys": "http://issuer.example/keys"}, "keys must be"),
        ({"name": ""}, "name must be"),
        ({"scope": "repository:write"}, "no such setting: scope"),
        ({"claims": {"iss": "https://issuer.example", "sub": "job"}}, "claims cannot name iss"),
        ({"claims": {"aud": AUDIENCE, "sub": "job"}}, "claims cannot name aud"),
    ],
)
def test_rule_that_cannot_be_used_is_named_with_its_line(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    wrong = {name: value for name, value in {**RULE, **changes}.items() if value is not None}
    path = write_policy(tmp_path / "broker.toml", RULE, wrong)
    with pytest.raises(PolicyError) as caught:
        read_policy(str(path))

    assert words in caught.value.what
    assert "line 8, " in caught.value.what


def test_text_that_looks_like_a_rule_does_not_change_the_line(tmp_path: Path) -> None:
    text = f'audience = """\n[[trust]]\n"""\n{EXAMPLE.partition("comment")[2]}[[trust]] # third\nissuer = 1\n'

    with pytest.raises(PolicyError, match=r"line 17, rule 3: issuer must be"):
        read(tmp_path, text)


def test_error_of_toml_names_file_and_line(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match=r"broker\.toml: .*line 2"):
        read(tmp_path, 'audience = "https://broker.example"\n[[trust]\n')
    with pytest.raises(PolicyError, match=r"broker\.toml: "):
        read(tmp_path, f'audience = "https://broker.example"\nper_minute = {"9" * 5000}\n')
    path = tmp_path / "broker.toml"
    path.write_bytes(b'audience = "x"\n# \xff\n')
    with pytest.raises(PolicyError, match=r"line 2: this is not UTF-8"):
        read_policy(str(path))


def test_claims_nested_too_deep_are_an_error(tmp_path: Path) -> None:
    names = ".".join("a" * 3000)
    with pytest.raises(PolicyError, match="nested too deep"):
        read(
            tmp_path, f'audience = "x"\n[[trust]]\nissuer = "https://i.example"\nallow = ["a/b"]\nclaims.{names} = 1\n'
        )
    with pytest.raises(PolicyError, match=r"nested too deep|Cannot|line"):
        read(tmp_path, f'audience = "x"\nx = {"[" * 5000}{"]" * 5000}\n')


def test_configuration_without_a_rule_is_an_error(tmp_path: Path) -> None:
    for trust in (
        "",
        "trust = []",
        'trust = "all"',
        "trust = 5",
        "trust = true",
        'trust = {issuer = "x"}',
        "trust = [5]",
    ):
        with pytest.raises(PolicyError, match="at least one rule"):
            read(tmp_path, f'audience = "x"\n{trust}\n')


def test_two_rules_of_one_name_and_two_key_sources_of_one_issuer_are_errors(tmp_path: Path) -> None:
    path = write_policy(tmp_path / "broker.toml", {**RULE, "name": "deploy"}, {**RULE, "name": "deploy"})
    with pytest.raises(PolicyError, match="an earlier rule has this name"):
        read_policy(str(path))
    write_policy(path, {**RULE, "keys": "/a.json"}, {**RULE, "keys": "/b.json"})
    with pytest.raises(PolicyError, match="names other keys"):
        read_policy(str(path))


def test_file_that_others_can_write_is_not_used(tmp_path: Path) -> None:
    path = write_policy(tmp_path / "broker.toml", RULE)
    path.chmod(0o666)
    with pytest.raises(PolicyError, match="others can write to"):
        read_policy(str(path))
    path.chmod(0o600)
    tmp_path.chmod(0o777)
    with pytest.raises(PolicyError, match="others can write to"):
        read_policy(str(path))


def test_file_of_another_user_is_not_used(tmp_path: Path, another_user: int) -> None:
    path = write_policy(tmp_path / "broker.toml", RULE)
    os.chown(path, another_user, another_user)
    with pytest.raises(PolicyError, match="belongs to another user"):
        read_policy(str(path))


@pytest.mark.parametrize(
    ("wanted", "found", "is_match"),
    [
        ("refs/heads/main", "refs/heads/main", True),
        ("refs/heads/main", "refs/heads/Main", False),
        ("true", True, False),
        (True, "true", False),
        (1, True, False),
        (True, 1, False),
        (1, 1, True),
        (1, 1.0, False),
        (1, "1", False),
        ("refs/heads/*", "refs/heads/main", True),
        ("refs/heads/*", "refs/heads/a/b", False),
        ("refs/heads/**", "refs/heads/a/b", True),
        ("refs/heads/*", "refs/heads/", True),
        ("*", "a:b", False),
        ("**", "a:b/c", True),
        ("repo:acme/*:ref:**", "repo:acme/deploy:ref:refs/heads/main", True),
        ("repo:acme/*:ref:**", "repo:acme/deploy:environment:x:ref:y", False),
        ("a*b*c", "a--b--c", True),
        ("a*b*c", "a--c--b", False),
        ("a***c", "a/:c", True),
        ("*main", "main", True),
        ("main*", "mai", False),
        ("**a", "baba", True),
        ("release-*", "release-1.0\nmain", True),
        ("a.c", "abc", False),
        ("[ab]", "a", False),
        (["main", "release-*"], "release-1", True),
        (["main", "release-*"], "other", False),
        ("ctx", ["a", "ctx"], True),
        ("ctx", ["a", ["ctx"]], False),
        ("ctx", ["ctx", {"a": 1}], False),
        ("ctx", [], False),
        (["x", "ctx"], ["a", "ctx"], True),
        ({"namespace": "ci"}, {"namespace": "ci", "pod": {"name": "x"}}, True),
        ({"namespace": "ci"}, "ci", False),
        ({"a": {"b": "c"}}, {"a": {"b": "d"}}, False),
        ("None", None, False),
    ],
)
def test_value_of_a_rule_and_value_of_a_token(wanted: object, found: object, is_match: bool) -> None:
    assert matches(wanted, found) is is_match


def test_long_patterns_match_in_time() -> None:
    started = time.process_time()

    assert not matches("**a" * 40 + "b", "a" * 12_000)
    assert not matches("*a*a*a*a*a*a" * 20 + "/", "a" * 12_000)
    assert time.process_time() - started < 5


def test_first_claim_that_differs_is_named() -> None:
    wanted: dict[str, object] = {
        "ref": "refs/heads/main",
        "kubernetes.io": {"namespace": "ci", "serviceaccount": {"name": "builder"}},
    }
    found: dict[str, object] = {
        "ref": "refs/heads/main",
        "kubernetes.io": {"namespace": "ci", "serviceaccount": {"name": "default"}},
    }

    assert difference(wanted, found) == ("kubernetes.io.serviceaccount.name", "default", "builder")
    assert difference({"absent": "x"}, found) == ("absent", None, "x")
    assert difference({"ref": "refs/heads/main"}, found) is None


@pytest.mark.parametrize(
    ("issuer", "claims"),
    [
        (GITHUB, {"repository_id": "74"}),
        (GITHUB, {"repository_id": ["74", "75"], "ref": "refs/heads/*"}),
        (GITHUB, {"repository_owner": "acme"}),
        (GITHUB, {"repository": "acme/*"}),
        (GITHUB, {"sub": "repo:acme/*:ref:refs/heads/main"}),
        (GITHUB, {"sub": "repo:acme@12/deploy@74:ref:refs/heads/main"}),
        (GITHUB, {"enterprise_id": "7"}),
        (GITLAB, {"project_id": "20", "ref_protected": "true"}),
        (GITLAB, {"project_path": "acme/**"}),
        (GITLAB, {"namespace_path": "acme"}),
        (GITLAB, {"sub": "project_path:acme/deploy:ref_type:branch:ref:main"}),
        (BUILDKITE, {"organization_slug": "acme"}),
        (BUILDKITE, {"sub": "organization:acme:pipeline:deploy:**"}),
        ("https://ci.example", {"sub": "job"}),
        ("https://ci.example", {"ref": "refs/*"}),
        ("https://ci.example", {"kubernetes.io": {"namespace": "ci", "pod": "*x"}}),
        ("https://ci.example", {"email_verified": True}),
    ],
)
def test_rule_that_names_whose_jobs_it_trusts_is_accepted(issuer: str, claims: dict[str, object]) -> None:
    check_claims(issuer, claims)


@pytest.mark.parametrize(
    ("issuer", "claims"),
    [
        (GITHUB, {"ref": "refs/heads/main"}),
        (GITHUB, {"actor": "octocat", "event_name": "push"}),
        (GITHUB, {"job_workflow_ref": "acme/workflows/.github/workflows/deploy.yml@refs/heads/main"}),
        (GITHUB, {"repository_owner": "acme*"}),
        (GITHUB, {"repository_owner": ["acme", "*me"]}),
        (GITHUB, {"repository_id": "7*"}),
        (GITHUB, {"repository_id": True}),
        (GITHUB, {"repository": "acme*"}),
        (GITHUB, {"repository": "acme"}),
        (GITHUB, {"repository": "acme*/deploy"}),
        (GITHUB, {"repository": ["acme/deploy", "**/deploy"]}),
        (GITHUB, {"repository": "/deploy"}),
        (GITHUB, {"sub": "repo:acme*"}),
        (GITHUB, {"sub": "repo:*/deploy:ref:refs/heads/main"}),
        (GITHUB, {"sub": "repo:acme@*/deploy:ref:refs/heads/main"}),
        (GITHUB, {"sub": "repo:/x"}),
        (GITHUB, {"sub": "acme/deploy"}),
        (GITHUB, {"sub": "**acme/deploy**"}),
        (GITHUB + "/", {"ref": "refs/heads/main"}),
        ("https://TOKEN.actions.githubusercontent.com", {"ref": "refs/heads/main"}),
        (GITLAB, {"job_project_path": "acme/deploy"}),
        (GITLAB, {"ref_protected": "true", "ref": "main"}),
        (GITLAB, {"namespace_path": "acme*"}),
        (GITLAB, {"sub": "project_path:acme*"}),
        (GITLAB, {"user_login": "somebody"}),
        (BUILDKITE, {"pipeline_slug": "deploy"}),
        (BUILDKITE, {"sub": "organization:acme*:pipeline:deploy"}),
        (BUILDKITE, {"build_branch": "main"}),
        ("https://ci.example", {"sub": "*"}),
        ("https://ci.example", {"sub": "*/deploy"}),
        ("https://ci.example", {"sub": ["job", "**/job"]}),
        ("https://ci.example", {"jti": "x"}),
        ("https://ci.example", {"kubernetes.io": {"namespace": "*ci"}}),
        ("https://ci.example", {"sub": ""}),
        ("https://ci.example", {"sub": "job", "ref": " **/: @"}),
        ("https://ci.example", {"sub": []}),
        ("https://ci.example", {"sub": {}}),
        ("https://ci.example", {"sub": [["job"]]}),
        ("https://ci.example", {"sub": 1.5}),
        ("https://ci.example", {}),
    ],
)
def test_rule_that_would_trust_everybody_is_refused(issuer: str, claims: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"."):
        check_claims(issuer, claims)


def test_date_in_a_rule_is_an_error(tmp_path: Path) -> None:
    rule = '[[trust]]\nissuer = "https://i.example"\nallow = ["a/b"]\nclaims = { sub = 2026-11-28 }\n'
    with pytest.raises(PolicyError, match="sub must be a string"):
        read(tmp_path, f'audience = "x"\n{rule}')
