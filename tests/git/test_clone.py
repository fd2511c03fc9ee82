"""The main job: git clones a private repository by the installed helper, and its token opens nothing else."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.conftest import Workspace, answer, cannot, need

pytestmark = pytest.mark.usefixtures("each_git")


def test_clone_costs_two_requests_and_the_token_is_for_this_repository_alone(acme: Workspace) -> None:
    acme.machine.git("clone", "-q", acme.url, "w")

    assert (acme.machine.home / "w/README.md").read_text() == "# widgets\n"
    lookup, swap = acme.bitbucket.helper_requests()
    assert (lookup.method, lookup.path) == ("GET", "/2.0/repositories/acme/widgets")
    assert swap.form == {
        "grant_type": "urn:bitbucket:oauth2:jwt",
        "scope": "repository",
        "bitbucket_repository": acme.widgets.uuid,
    }
    for seen in (lookup, swap):
        assert seen.status == 200
        assert seen.claims["exp"] - seen.claims["iat"] <= 180


def test_fetch_uses_the_cached_token(acme: Workspace) -> None:
    acme.machine.git("clone", "-q", acme.url, "w")
    acme.machine.git("fetch", "-q", cwd=acme.machine.home / "w")

    assert len(acme.bitbucket.helper_requests()) == 2


def test_push_works_with_the_scope_that_allows_it(acme: Workspace) -> None:
    acme.app.scopes = {"repository:write"}
    acme.machine.git(
        "config", "--global", f"credential.{acme.bitbucket.base_url}.helper", "bbjwt --scope repository:write"
    )
    acme.machine.git("clone", "-q", acme.url, "w")
    clone = acme.machine.home / "w"
    acme.machine.git("commit", "-q", "--allow-empty", "-m", "yes", cwd=clone)
    acme.machine.git("push", "-q", cwd=clone)

    assert acme.bitbucket.helper_requests()[1].form["scope"] == "repository:write"


def test_token_of_one_repository_opens_no_other(acme: Workspace) -> None:
    other = acme.bitbucket.host_repository("acme/gadgets")
    token = answer(acme.get())["password"]
    with_token = acme.bitbucket.url(other).replace("://", f"://x-token-auth:{token}@")
    cloned = acme.machine.git("clone", "-q", with_token, "g", check=False)

    assert cloned.returncode != 0
    assert "403" in cloned.stderr


def test_url_with_uuids_costs_one_request(acme: Workspace) -> None:
    url = f"{acme.bitbucket.base_url}/{acme.app.workspace_uuid}/{acme.widgets.uuid}"
    acme.machine.git("clone", "-q", url.replace("{", "%7B").replace("}", "%7D"), "w")

    (swap,) = acme.bitbucket.helper_requests()
    assert swap.form["bitbucket_repository"] == acme.widgets.uuid


@pytest.mark.parametrize(
    "form",
    ["{base}/acme/widgets", "{base}/ACME/Widgets.git", "{someone}/acme/widgets.git"],
)
def test_urls_people_have(acme: Workspace, form: str) -> None:
    base = acme.bitbucket.base_url
    acme.machine.git("clone", "-q", form.format(base=base, someone=base.replace("://", "://someone@")), "w")

    assert acme.bitbucket.mints() == 1


def test_jwt_satisfies_atlassians_own_library(acme: Workspace, tmp_path: Path) -> None:
    npm, node = need("npm"), need("node")
    folder = tmp_path / "node"
    folder.mkdir()
    environment = dict(os.environ) | {"npm_config_cache": str(tmp_path / "npm")}
    install = (npm, "install", "--no-audit", "--no-fund", "--prefix", folder, "atlassian-jwt@2")
    installed = acme.machine.run(*install, check=False, env=environment)
    if installed.returncode != 0:
        cannot("the npm registry is out of reach")
    acme.get()
    script = """
        const jwt = require('atlassian-jwt');
        const {seen, secret} = JSON.parse(require('fs').readFileSync(0));
        for (const one of seen) {
            const claims = jwt.decodeSymmetric(one.jwt, secret, 'HS256');
            const request = jwt.fromMethodAndUrl(one.method, one.target);
            if (claims.qsh !== jwt.createQueryStringHash(request, false)) throw new Error('qsh of ' + one.target);
        }
        console.log(seen.length);
    """
    seen = [
        {
            "method": one.method,
            "target": one.path + ("?" + "&".join(f"{k}={v}" for k, v in one.query) if one.query else ""),
            "jwt": one.jwt,
        }
        for one in acme.bitbucket.helper_requests()
    ]
    checked = acme.machine.run(
        node,
        "-e",
        script,
        data=json.dumps({"seen": seen, "secret": acme.app.shared_secret}),
        env=environment | {"NODE_PATH": str(folder / "node_modules")},
    )
    assert checked.stdout.strip() == "2"
