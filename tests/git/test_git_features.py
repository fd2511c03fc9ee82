"""Features of git with every installed git: submodules, LFS, partial clones, many remotes, worktrees."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import tally
from tests.conftest import EVERYTHING, Workspace, answer, need
from tests.emulator import HostedRepository

#: The first version of git with a feature.
SINCE = {
    "configure for a workspace": (2, 26),
    "exec": (2, 31),
    "healing of a revoked token within one command": (2, 46),
}


@pytest.fixture(autouse=True)
def noted(
    request: pytest.FixtureRequest, each_git: tuple[int, ...], record_property: Callable[[str, object], None]
) -> None:
    """Record the git with which the test's feature worked. For older versions, the test expects a refusal."""
    feature = request.node.originalname.removeprefix("test_").replace("_", " ")
    if each_git < SINCE.get(feature, ()):
        return
    record_property(*tally.worked_with("git", ".".join(map(str, each_git)), feature))


def hosting(acme: Workspace, name: str, files: dict[str, str]) -> HostedRepository:
    """Host another repository of the workspace."""
    return acme.bitbucket.host_repository(f"acme/{name}", files)


def with_submodules(acme: Workspace, urls: dict[str, str]) -> HostedRepository:
    """Host acme/outer with a submodule for each of ``urls``, by name; each is at its repository's main."""
    modules = "".join(f'[submodule "{name}"]\n\tpath = {name}\n\turl = {url}\n' for name, url in urls.items())
    outer = hosting(acme, "outer", {".gitmodules": modules})
    work = acme.machine.home / "author"
    acme.machine.run("git", "clone", "-q", outer.path, work)
    for name in urls:
        (inner,) = [one for one in acme.bitbucket.repositories if one.slug == name]
        commit = acme.machine.run("git", "-C", inner.path, "rev-parse", "main").stdout.strip()
        acme.machine.run("git", "update-index", "--add", "--cacheinfo", f"160000,{commit},{name}", cwd=work)
    acme.machine.run("git", "commit", "-q", "-m", "Submodules", cwd=work)
    acme.machine.run("git", "push", "-q", "origin", "HEAD:main", cwd=work)
    return outer


def test_submodules(acme: Workspace) -> None:
    names = ("relative", "absolute", "scp-like", "ssh")
    for name in names:
        hosting(acme, name, {"name": name})
    base = acme.bitbucket.base_url
    outer = with_submodules(
        acme,
        {
            "relative": "../relative.git",
            "absolute": f"{base}/acme/absolute.git",
            "scp-like": "git@localhost:acme/scp-like.git",
            "ssh": "ssh://git@localhost/acme/ssh.git",
        },
    )
    acme.machine.bbjwt("configure", "--rewrite-ssh")
    acme.machine.git("clone", "-q", "--recurse-submodules", acme.bitbucket.url(outer), "w")

    for name in names:
        assert (acme.machine.home / "w" / name / "name").read_text() == name
    assert acme.bitbucket.mints() == 5
    assert len({token.repository for token in acme.bitbucket.tokens.values()}) == 5


def test_submodules_side_by_side(acme: Workspace) -> None:
    names = [f"part{number}" for number in range(20 if EVERYTHING else 6)]
    for name in names:
        hosting(acme, name, {"name": name})
    outer = with_submodules(acme, {name: f"../{name}" for name in names})
    acme.machine.git("clone", "-q", "--recurse-submodules", "--jobs=8", acme.bitbucket.url(outer), "w")

    assert all((acme.machine.home / "w" / name / "name").exists() for name in names)
    assert acme.bitbucket.mints() == len(names) + 1
    assert len(acme.bitbucket.helper_requests()) == 2 * (len(names) + 1)


def test_shallow_clone(acme: Workspace) -> None:
    acme.machine.git("clone", "-q", "--depth=1", acme.url, "w")
    acme.machine.git("fetch", "-q", "--unshallow", cwd=acme.machine.home / "w", check=False)

    assert acme.bitbucket.mints() == 1


def test_partial_clone(acme: Workspace) -> None:
    acme.machine.git("clone", "-q", "--filter=blob:none", "--no-checkout", acme.url, "w")
    # The blob comes now, by a fetch that git makes by itself.
    acme.machine.git("checkout", "-q", "main", cwd=acme.machine.home / "w")

    assert (acme.machine.home / "w/README.md").read_text() == "# widgets\n"
    assert acme.bitbucket.mints() == 1


def test_fetch_of_several_remotes(acme: Workspace) -> None:
    gadgets = hosting(acme, "gadgets", {"x": "y"})
    acme.machine.git("clone", "-q", acme.url, "w")
    clone = acme.machine.home / "w"
    acme.machine.git("remote", "add", "gadgets", acme.bitbucket.url(gadgets), cwd=clone)
    acme.machine.git("fetch", "-q", "--multiple", "origin", "gadgets", cwd=clone)

    assert acme.bitbucket.mints() == 2


def test_ls_remote(acme: Workspace) -> None:
    assert "refs/heads/main" in acme.machine.git("ls-remote", acme.url).stdout


def test_worktrees(acme: Workspace) -> None:
    acme.machine.git("clone", "-q", acme.url, "w")
    acme.machine.git("worktree", "add", "-q", "../other", cwd=acme.machine.home / "w")
    acme.machine.git("fetch", "-q", cwd=acme.machine.home / "other")

    assert acme.bitbucket.mints() == 1


def test_archive_of_a_remote_is_refused(acme: Workspace) -> None:
    # By git before 2.44 itself, else by the server.
    done = acme.machine.git("archive", f"--remote={acme.url}", "main", check=False)

    assert done.returncode != 0
    assert "password" not in done.stderr


def test_push_is_refused(acme: Workspace) -> None:
    acme.machine.git("clone", "-q", acme.url, "w")
    clone = acme.machine.home / "w"
    acme.machine.git("commit", "-q", "--allow-empty", "-m", "no", cwd=clone)

    assert "403" in acme.machine.git("push", "-q", cwd=clone, check=False).stderr


def test_no_prompt_if_no_token_is_available(acme: Workspace) -> None:
    acme.app.uninstalled = True
    done = acme.machine.git("ls-remote", acme.url, check=False, GIT_TERMINAL_PROMPT=None, GIT_ASKPASS="false")

    assert done.returncode == 128
    assert "hint: " in done.stderr


def with_lfs_object(acme: Workspace, content: bytes) -> HostedRepository:
    """Host acme/large with one file in LFS."""
    digest = hashlib.sha256(content).hexdigest()
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{digest}\nsize {len(content)}\n"
    large = hosting(acme, "large", {".gitattributes": "*.bin filter=lfs -text\n", "big.bin": pointer})
    store = large.path / "lfs-objects"
    store.mkdir()
    (store / digest).write_bytes(content)
    return large


def test_lfs(acme: Workspace, record_property: Callable[[str, object], None]) -> None:
    need("git-lfs")
    version = acme.machine.git("lfs", "version").stdout.split("/")[1].split()[0]
    record_property(*tally.worked_with("git-lfs", version))
    large = with_lfs_object(acme, b"large " * 1000)
    acme.machine.git("lfs", "install", "--skip-repo")
    acme.machine.git("clone", "-q", acme.bitbucket.url(large), "w")

    assert (acme.machine.home / "w/big.bin").read_bytes() == b"large " * 1000
    assert acme.bitbucket.mints() == 1
    # The storage host has a key of its own, and gets no password of git's.
    stored = [one for one in acme.bitbucket.seen if one.origin == "storage"]
    assert stored
    assert not any("Basic" in str(one.headers) for one in stored)
    assert acme.machine.get(f"{acme.bitbucket.storage_url}/acme/large.git/info/lfs").stdout == ""


@pytest.mark.parametrize("kind", ["connect", "not kept", "oauth-consumer", "injected consumer"])
def test_lfs_that_refuses_every_token_ends(acme: Workspace, kind: str) -> None:
    need("git-lfs")
    large = with_lfs_object(acme, b"large " * 1000)
    acme.machine.git("lfs", "install", "--skip-repo")
    acme.bitbucket.rules.lfs_refuses = True
    consumer = json.dumps(acme.bitbucket.consumer_json(acme.bitbucket.add_consumer()))
    if kind == "oauth-consumer":
        del acme.machine.environment["BBJWT_INSTALLATION"]
        acme.machine.bbjwt("register", "--insecure-storage", "-", data=consumer)
    elif kind == "injected consumer":
        acme.machine.environment["BBJWT_INSTALLATION"] = consumer
    elif kind == "not kept":
        acme.machine.git(
            "config", "--global", f"credential.{acme.bitbucket.base_url}.helper", "bbjwt --token-store=none"
        )
    cloned = acme.machine.git("clone", "-q", acme.bitbucket.url(large), "w", check=False)

    assert cloned.returncode != 0
    assert acme.bitbucket.mints() <= 9
    assert "large" in cloned.stderr


def test_lfs_upload_is_refused(acme: Workspace) -> None:
    need("git-lfs")
    acme.machine.git("lfs", "install", "--skip-repo")
    acme.machine.git("clone", "-q", acme.url, "w")
    clone: Path = acme.machine.home / "w"
    acme.machine.git("lfs", "track", "*.bin", cwd=clone)
    (clone / "new.bin").write_bytes(b"x" * 5000)
    acme.machine.git("add", ".", cwd=clone)
    acme.machine.git("commit", "-q", "-m", "Large", cwd=clone)
    pushed = acme.machine.git("push", cwd=clone, check=False)

    assert pushed.returncode != 0
    assert not (acme.widgets.path / "lfs-objects").exists()


def test_healing_of_a_revoked_token_within_one_command(acme: Workspace, each_git: tuple[int, ...]) -> None:
    acme.machine.git("clone", "-q", acme.url, "w")
    acme.bitbucket.revoke_tokens()
    clone = acme.machine.home / "w"
    first = acme.machine.git("fetch", "-q", cwd=clone, check=False)

    assert (first.returncode == 0) == (each_git >= (2, 46)), first.stderr
    acme.machine.git("fetch", "-q", cwd=clone)


def test_configure_for_a_workspace(acme: Workspace, each_git: tuple[int, ...]) -> None:
    (acme.machine.home / ".gitconfig").unlink()
    done = acme.machine.bbjwt("configure", "--workspace", "acme", check=False)

    if each_git >= (2, 26):
        acme.machine.git("clone", "-q", acme.url, "w")
    else:
        assert "configure --workspace needs git 2.26 or newer" in done.stderr
        assert not (acme.machine.home / ".gitconfig").exists()


def test_exec(acme: Workspace, each_git: tuple[int, ...]) -> None:
    (acme.machine.home / ".gitconfig").unlink()
    done = acme.machine.bbjwt("exec", "--", "git", "clone", "-q", acme.url, "w", check=False)

    if each_git >= (2, 31):
        assert (acme.machine.home / "w/README.md").exists()
    else:
        assert "exec needs git 2.31 or newer" in done.stderr


def test_another_helper_keeps_no_expired_token(acme: Workspace, each_git: tuple[int, ...]) -> None:
    # `store` comes first, so it gets every token and is asked before this helper.
    text = (acme.machine.home / ".gitconfig").read_text()
    (acme.machine.home / ".gitconfig").write_text("[credential]\n\thelper = store\n" + text)
    acme.bitbucket.rules.lifetime = 3600
    acme.machine.git("clone", "-q", acme.url, "w")
    acme.bitbucket.revoke_tokens()
    acme.machine.bbjwt("forget", "--all")
    for _ in range(2):  # The first token may be refused. Then git makes the helpers erase it.
        done = acme.machine.git("fetch", "-q", cwd=acme.machine.home / "w", check=False)

    assert done.returncode == 0, (each_git, done.stderr)
    assert answer(acme.get())["username"] == "x-token-auth"
