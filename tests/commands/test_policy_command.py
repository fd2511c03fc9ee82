"""`policy`: an operator tries the https broker's configuration with the tokens that each platform documents."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import COMMAND, Machine
from tests.issuer import AUDIENCE, Issuer, write_policy

WIDGETS = "https://bitbucket.org/acme/widgets"
RULE: dict[str, Any] = {
    "issuer": "https://issuer.example",
    "claims": {"repository_id": "74"},
    "allow": ["acme/widgets"],
}


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return write_policy(tmp_path / "broker.toml", RULE, {**RULE, "claims": {"sub": "repo:**"}, "allow": ["acme/lib-*"]})


# The claims in each platform's documentation, with values for the rules; read in November 2026.
PLATFORMS: dict[str, tuple[dict[str, Any], dict[str, Any], tuple[str, object]]] = {
    # docs.github.com, "OpenID Connect reference", "Example token".
    "GitHub": (
        {
            "jti": "example-id",
            "sub": "repo:octo-org/octo-repo:environment:prod",
            "environment": "prod",
            "aud": AUDIENCE,
            "ref": "refs/heads/main",
            "sha": "example-sha",
            "repository": "octo-org/octo-repo",
            "repository_owner": "octo-org",
            "actor_id": "12",
            "repository_visibility": "private",
            "repository_id": "74",
            "repository_owner_id": "65",
            "run_id": "example-run-id",
            "run_number": "10",
            "run_attempt": "2",
            "runner_environment": "github-hosted",
            "actor": "octocat",
            "workflow": "example-workflow",
            "head_ref": "",
            "base_ref": "",
            "event_name": "workflow_dispatch",
            "ref_type": "branch",
            "job_workflow_ref": "octo-org/octo-automation/.github/workflows/oidc.yml@refs/heads/main",
            "iss": "https://token.actions.githubusercontent.com",
            "nbf": 1632492967,
            "exp": 1632493867,
            "iat": 1632493567,
        },
        {"repository_id": "74", "environment": "prod", "ref": "refs/heads/*"},
        ("repository_id", "75"),
    ),
    # docs.github.com, "OpenID Connect reference", "Immutable subject claims": repositories created after July 15, 2026.
    "GitHub with IDs in sub": (
        {
            "sub": "repo:octo-org@65/octo-repo@74:ref:refs/heads/main",
            "aud": AUDIENCE,
            "repository_id": "74",
            "iss": "https://token.actions.githubusercontent.com",
        },
        {"sub": "repo:octo-org@65/octo-repo@74:ref:refs/heads/*"},
        ("sub", "repo:octo-org@66/octo-repo@74:ref:refs/heads/main"),
    ),
    # docs.gitlab.com, "OpenID Connect (OIDC) Authentication Using ID Tokens", "Token payload".
    "GitLab": (
        {
            "namespace_id": "72",
            "namespace_path": "my-group",
            "project_id": "20",
            "project_path": "my-group/my-project",
            "user_id": "1",
            "user_login": "sample-user",
            "user_email": "sample-user@example.com",
            "user_identities": [{"provider": "github", "extern_uid": "2435223452345"}],
            "pipeline_id": "574",
            "pipeline_source": "push",
            "job_id": "302",
            "ref": "feature-branch-1",
            "ref_type": "branch",
            "ref_path": "refs/heads/feature-branch-1",
            "ref_protected": "true",
            "groups_direct": ["mygroup/mysubgroup", "myothergroup/myothersubgroup"],
            "environment_protected": "false",
            "runner_id": 1,
            "runner_environment": "self-hosted",
            "jti": "235b3a54-b797-45c7-ae9a-f72d7bc6ef5b",
            "iss": "https://gitlab.com",
            "iat": 1681395193,
            "nbf": 1681395188,
            "exp": 1681398793,
            "sub": "project_path:my-group/my-project:ref_type:branch:ref:feature-branch-1",
            "aud": AUDIENCE,
        },
        {"project_id": "20", "ref_protected": "true", "ref_type": "branch", "pipeline_source": "push"},
        ("ref_protected", True),
    ),
    # support.atlassian.com, "Integrate Pipelines with resource servers using OIDC"; a custom audience is a list.
    "Bitbucket Pipelines": (
        {
            "iss": "https://api.bitbucket.org/2.0/workspaces/acme/pipelines-config/identity/oidc",
            "aud": [AUDIENCE],
            "sub": "{f8a3c1d2-0000-4000-8000-000000000001}:{0b9c3d4e-0000-4000-8000-000000000002}",
            "stepUuid": "{0b9c3d4e-0000-4000-8000-000000000002}",
            "repositoryUuid": "{f8a3c1d2-0000-4000-8000-000000000001}",
            "workspaceUuid": "{aa11bb22-0000-4000-8000-000000000003}",
            "pipelineUuid": "{cc33dd44-0000-4000-8000-000000000004}",
            "branchName": "main",
            "iat": 1593553203,
            "exp": 1593556803,
        },
        {"repositoryUuid": "{f8a3c1d2-0000-4000-8000-000000000001}", "branchName": "main"},
        ("repositoryUuid", "f8a3c1d2-0000-4000-8000-000000000001"),
    ),
    # buildkite.com/docs, "buildkite-agent oidc", "OIDC claims".
    "Buildkite": (
        {
            "iss": "https://agent.buildkite.com",
            "sub": "organization:acme-inc:pipeline:super-duper-app:ref:refs/heads/main:commit:9f3182061f1e:step:build",
            "aud": AUDIENCE,
            "iat": 1669014898,
            "nbf": 1669014898,
            "exp": 1669015198,
            "organization_slug": "acme-inc",
            "pipeline_slug": "super-duper-app",
            "build_number": 1,
            "build_branch": "main",
            "build_commit": "9f3182061f1e2cca4702c368cbc039b7dc9d4485",
            "step_key": "build",
            "job_id": "0184990a-477b-4fa8-9968-496074483cee",
            "agent_id": "0184990a-4782-42b5-afc1-16715b10b8ff",
        },
        {"organization_slug": "acme-inc", "pipeline_slug": "super-duper-app", "build_number": 1},
        ("build_number", "1"),
    ),
    # circleci.com/docs, "Using OpenID Connect tokens in jobs".
    "CircleCI": (
        {
            "iss": "https://oidc.circleci.com/org/6f1c2a3b-0000-4000-8000-000000000005",
            "sub": "org/6f1c2a3b-0000-4000-8000-000000000005/project/77aa/user/88bb/vcs-origin/x/vcs-ref/main",
            "aud": AUDIENCE,
            "iat": 1648656000,
            "exp": 1648659600,
            "oidc.circleci.com/project-id": "77aa",
            "oidc.circleci.com/context-ids": ["11cc", "22dd"],
            "oidc.circleci.com/ssh-rerun": False,
        },
        {
            "oidc.circleci.com/project-id": "77aa",
            "oidc.circleci.com/context-ids": "22dd",
            "oidc.circleci.com/ssh-rerun": False,
        },
        ("oidc.circleci.com/ssh-rerun", True),
    ),
    # kubernetes.io/docs, "Managing Service Accounts", "Bound service account tokens".
    "Kubernetes": (
        {
            "aud": [AUDIENCE],
            "exp": 1729605240,
            "iat": 1729601640,
            "iss": "https://kubernetes.default.svc.cluster.local",
            "jti": "aed34954-b33a-4142-b1ec-389d6bbb4936",
            "kubernetes.io": {
                "namespace": "ci",
                "node": {"name": "worker-1", "uid": "e8f8c9e5"},
                "serviceaccount": {"name": "builder", "uid": "14ee3fa4-a7e2-420f-9f9a-dbc4507c3798"},
            },
            "nbf": 1729601640,
            "sub": "system:serviceaccount:ci:builder",
        },
        {"kubernetes.io": {"namespace": "ci", "serviceaccount": {"name": "builder"}}},
        ("kubernetes.io", {"namespace": "ci", "serviceaccount": {"name": "default"}}),
    ),
}


@pytest.mark.parametrize("platform", PLATFORMS)
def test_claims_as_each_platform_documents_them(machine: Machine, tmp_path: Path, platform: str) -> None:
    claims, wanted, (name, other) = PLATFORMS[platform]
    config = write_policy(tmp_path / "broker.toml", {**RULE, "issuer": claims["iss"], "claims": wanted})

    done = machine.bbjwt("policy", config, "--id-token", "-", WIDGETS, data=json.dumps(claims, indent=2))
    assert "rule 1, line 3: yes\n" in done.stdout
    assert done.stdout.endswith(f"may read: acme/widgets\n{WIDGETS}: yes\n")

    done = machine.bbjwt("policy", config, "--id-token", "-", data=json.dumps({**claims, name: other}), check=False)
    assert done.returncode == 1
    assert f"rule 1, line 3: no: {name}" in done.stdout
    assert done.stdout.endswith("may read: nothing\n")


def test_each_rule_is_printed(machine: Machine, config: Path) -> None:
    done = machine.bbjwt("policy", config)

    assert "audience: https://broker.example\nwhole_workspace: off\n" in done.stdout
    assert "rule 1, line 3\n  issuer: https://issuer.example\n  keys: by discovery\n" in done.stdout
    assert '  repository_id = "74"\n  repositories: acme/widgets\n' in done.stdout
    assert "rule 2, line 8\n" in done.stdout


def test_broken_configuration_is_an_error_with_its_line(machine: Machine, tmp_path: Path) -> None:
    config = write_policy(tmp_path / "broker.toml", RULE, {**RULE, "allow": []})
    done = machine.bbjwt("policy", config, check=False)

    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith(f"git-credential-bbjwt: error: {config}, line 8, rule 2: allow must be")


def test_options_and_arguments_in_any_order(machine: Machine, config: Path) -> None:
    claims = json.dumps(Issuer().claims())
    orders: list[list[str | Path]] = [
        [config, "--id-token", "-", WIDGETS, "https://bitbucket.org/acme/lib-a"],
        ["--id-token=-", config, WIDGETS, "https://bitbucket.org/acme/lib-a"],
        [config, WIDGETS, "--id-token", "-", "https://bitbucket.org/acme/lib-a"],
    ]
    for words in orders:
        done = machine.bbjwt("policy", *words, data=claims)
        assert done.stdout.endswith(
            f"may read: acme/widgets, acme/lib-*\n{WIDGETS}: yes\nhttps://bitbucket.org/acme/lib-a: yes\n"
        )


def test_url_that_may_not_be_read(machine: Machine, config: Path) -> None:
    done = machine.bbjwt(
        "policy", config, WIDGETS, "https://bitbucket.org/acme/x", "--id-token", "-", check=False,
        data=json.dumps(Issuer().claims()),
    )  # fmt: skip

    assert done.returncode == 1
    assert f"{WIDGETS}: yes\nhttps://bitbucket.org/acme/x: no\n" in done.stdout


def test_first_claim_that_differs_is_shown_with_both_values(machine: Machine, config: Path) -> None:
    claims = Issuer().claims(repository_id=74, aud=["https://other.example"])
    done = machine.bbjwt("policy", config, "--id-token", "-", data=json.dumps(claims), check=False)
    assert 'no: aud is ["https://other.example"], and the rule says ["https://broker.example"]' in done.stdout

    claims = Issuer().claims(repository_id=74)
    done = machine.bbjwt("policy", config, "--id-token", "-", data=json.dumps(claims))
    assert 'rule 1, line 3: no: repository_id is 74, and the rule says "74"\nrule 2, line 8: yes\n' in done.stdout


def test_signature_is_checked_by_the_keys_in_a_file(machine: Machine, tmp_path: Path) -> None:
    issuer, keys = Issuer(kind="P-256"), tmp_path / "keys.json"
    keys.write_text(json.dumps(issuer.jwks()))
    config = write_policy(tmp_path / "broker.toml", {**RULE, "keys": str(keys)})
    token = issuer.token()

    done = machine.bbjwt("policy", config, "--id-token", "-", WIDGETS, data=token)
    assert "not checked" not in done.stdout
    assert token not in done.stdout + done.stderr

    done = machine.bbjwt("policy", config, "--id-token", "-", data=Issuer(kind="P-256").token(), check=False)
    assert done.returncode == 1
    assert "not accepted: the ID token's issuer has no such key\nmay read: nothing\n" in done.stdout


def test_signature_that_is_not_checked_is_named(machine: Machine, config: Path) -> None:
    done = machine.bbjwt("policy", config, "--id-token", "-", data=Issuer().token())
    assert "not checked, because the issuer's keys are not in a file: the signature\n" in done.stdout


def test_expired_token_reads_nothing(machine: Machine, config: Path) -> None:
    now = int(time.time())
    token = Issuer().token(exp=now - 100, iat=now - 400)
    done = machine.bbjwt("policy", config, "--id-token", "-", data=token, check=False)

    assert done.returncode == 1
    assert "rule 1, line 3: yes\n" in done.stdout
    assert "not accepted: the ID token has expired\nmay read: nothing\n" in done.stdout


@pytest.mark.parametrize(
    ("words", "data"),
    [
        ([WIDGETS], ""),
        (["--id-token", "-", "--unknown"], ""),
        (["--id-token"], ""),
        (["--id-token", "-", "not a URL"], "{}"),
    ],
)
def test_wrong_usage(machine: Machine, config: Path, words: list[str], data: str) -> None:
    done = machine.bbjwt("policy", config, *words, data=data, check=False)
    assert done.returncode == (1 if data else 2)
    assert done.stdout == ""


def test_usage_without_arguments_names_what_is_required(machine: Machine) -> None:
    assert "required: FILE\n" in machine.bbjwt("policy", check=False).stderr


@pytest.mark.parametrize("data", ["", "not a token", "{", '{"a": 1, "a": 2}', "a.b.c", "\0", "[" * 20_000])
def test_text_that_is_not_a_token_is_not_repeated(machine: Machine, config: Path, data: str) -> None:
    done = machine.bbjwt("policy", config, "--id-token", "-", data=data, check=False)
    assert done.returncode == 1
    assert len(data) < 3 or data not in done.stderr


def test_value_with_control_characters_is_escaped(machine: Machine, config: Path) -> None:
    claims = Issuer().claims(repository_id="\x1b[31m\n")
    done = machine.bbjwt("policy", config, "--id-token", "-", data=json.dumps(claims))
    assert "\x1b" not in done.stdout
    assert 'repository_id is "\\u001b[31m\\n", and' in done.stdout


def test_claims_may_come_late_from_a_pipe(machine: Machine, config: Path) -> None:
    claims = json.dumps({"iss": RULE["issuer"], "aud": AUDIENCE, "sub": "job", "repository_id": "74"})
    script = '(sleep 1; echo "$1") | "$2" policy "$3" --id-token /dev/stdin "$4"'
    done = machine.run("sh", "-c", script, "sh", claims, COMMAND, config, WIDGETS)

    assert f"{WIDGETS}: yes" in done.stdout


def test_configuration_must_be_a_regular_file(machine: Machine, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "broker.toml", 0o600)
    done = machine.bbjwt("policy", tmp_path / "broker.toml", check=False)

    assert "it is not a regular file" in done.stderr
