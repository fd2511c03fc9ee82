"""Hosts and paths: those that name a repository, and the many that do not."""

from __future__ import annotations

import pytest

from git_credential_bbjwt.core.failures import NotARepositoryError
from git_credential_bbjwt.core.repository import normal_host, parse_path
from git_credential_bbjwt.git.clone_urls import parse_url
from tests.conftest import Workspace, answer, request

UUID = "{12345678-1234-1234-1234-123456789abc}"


@pytest.mark.parametrize(
    "path",
    [
        "acme/widgets",
        "acme/widgets.git",
        "/acme/widgets",
        "acme/widgets/",
        "/acme/widgets.git/",
        "ACME/Widgets.GIT",
        "acme/widgets.git/info/lfs",
        "acme/widgets/info/lfs/objects/batch",
        "acme/widgets/wiki",
        "acme/widgets.git/wiki/",
        "ac%6de/widgets",
        "acme/widgets.git/config",
        "acme/widgets/config",
        "acme/widgets.git/info/refs",
        "acme/widgets.git/annex/objects/abc/def/SHA256E-s1--0/SHA256E-s1--0",
    ],
)
def test_paths_of_a_repository(path: str) -> None:
    repository = parse_path("bitbucket.org", path.encode())

    assert repository.full_name == "acme/widgets"
    assert repository.uuid is None


def test_names_have_128_characters_at_most() -> None:
    longest = "a" * 128

    assert parse_path("bitbucket.org", f"{longest}/{longest}.git".encode()).full_name == f"{longest}/{longest}"
    with pytest.raises(NotARepositoryError):
        parse_path("bitbucket.org", f"acme/{longest}a".encode())


@pytest.mark.parametrize("path", [f"{UUID}/{UUID}", f"{UUID}/{UUID}.git", f"%7B{UUID[1:-1].upper()}%7d/{UUID}"])
def test_uuids_with_plain_or_encoded_braces(path: str) -> None:
    repository = parse_path("bitbucket.org", path.encode())

    assert (repository.workspace, repository.uuid) == (UUID, UUID)


#: Paths that name no repository, whatever a server or file system might make of them.
HOSTILE_PATHS = [
    b"",
    b"/",
    b"acme",
    b"acme/",
    b"//acme/widgets",
    b"acme//widgets",
    b"acme/widgets//",
    b"acme/../widgets",
    b"acme/widgets/..",
    b"acme/widgets/info/lfs/../../../other/thing",
    b"acme/widgets/info/lfs/%20",
    b"acme/widgets/info/lfs/%7f",
    b"acme/widgets/info/lfs/%5c",
    b"acme/widgets/info/lfs/%2f",
    b"acme/%2e%2e",
    b"acme/%2E%2E/other/thing",
    b"./acme/widgets",
    b"acme/.",
    b"acme/...",
    b"acme/.git",
    b"acme/wid%2Fgets",
    b"acme%2Fwidgets",
    b"acme/wid%5Cgets",
    b"acme/wid\\gets",
    b"acme/wid%00gets",
    b"acme/wid%0agets",
    b"acme/wid%0d%0agets",
    b"acme/wid\rgets",
    b"acme/wid\tgets",
    b"acme/wid gets",
    b"acme/wid%20gets",
    b"acme/wid%7fgets",
    b"acme/widgets%",
    b"acme/widgets%4",
    b"acme/widgets%zz",
    b"acme/widgets%252e",
    b"acme/widgets?x=1",
    b"acme/widgets#x",
    b"acme/widgets;x",
    b"acme/widgets@evil",
    b"acme/wid:gets",
    b"acme/{widgets}",
    b"acme/{12345678-1234-1234-1234-123456789abz}",
    b"acme/{12345678-1234-1234-1234-123456789abc",
    b"acme/{123456781234123412341234-56789abc-ab}",
    b"acme/{12345678-1234-1234-1234-123456789abcx",
    b"acme/x12345678-1234-1234-1234-123456789abc}",
    b"acme/{" + b"a" * 36 + b"}",
    b"acme/widgets/info",
    b"acme/widgets/info/refs/heads",
    b"acme/widgets/config/x",
    b"acme/widgets/annexes/x",
    b"acme/widgets/annex/../../other/thing",
    b"config/info/refs/x",
    b"acme/widgets/info/lfsx",
    b"acme/widgets/wiki/extra",
    b"acme/widgets/src/main",
    "acme/widgéts".encode(),
    "аcme/widgets".encode(),  # a Cyrillic letter
    b"acme/\xff\xfe",
    b"acme/" + b"a" * 129,
    b"a" * 60_000 + b"/b",
]


@pytest.mark.parametrize("path", HOSTILE_PATHS, ids=range(len(HOSTILE_PATHS)))
def test_paths_of_no_repository(path: bytes) -> None:
    with pytest.raises(NotARepositoryError):
        parse_path("bitbucket.org", path)


def test_path_of_no_repository_gets_one_line_and_no_password(acme: Workspace) -> None:
    for path in HOSTILE_PATHS[2::8]:  # The first two are no path, and another case.
        data = request(acme.bitbucket.base_url).encode() + b"path=" + path + b"\n\n"
        done = acme.machine.bbjwt("get", data=data)
        assert (done.stdout, done.stderr.count("\n")) == ("", 1), path
    assert acme.bitbucket.seen == []


def hostile_hosts(host: str) -> list[bytes]:
    """Return hosts that look like ``host`` but differ."""
    name, _, port = host.partition(":")
    texts = [
        name,
        f"{name}:1{port}",
        f"{name}:0{port}",
        f"{name}:{port}0",
        f"{name}:",
        f"{name}.:{port}",
        f"evil.{host}",
        f"{name}.evil.example:{port}",
        f"evil{host}",
        f"{host}.evil.example",
        f"{host}@evil.example",
        f"someone@{host}",
        f"someone:secret@{host}",
        f"{host}/",
        f"{host}/evil",
        f"{host}?x",
        f"{host}#x",
        f"{host}\\evil",
        f"{host} ",
        f" {host}",
        f"{host}\r",
        f"\t{host}",
        f"{host}%0a",
        f"{host}%00",
        f"https://{host}",
        host.replace("l", "ⅼ"),
        host.replace("o", "о"),
        host.replace("a", "ａ"),
        host.replace("s", "ſ"),
        "xn--" + host,
        "*",
        "",
        "127.0.0.1:" + port,
        "[::1]:" + port,
    ]
    return [text.encode() for text in texts] + [host.encode() + b"\xff", b"\x80" + host.encode()]


def test_no_other_host_ever_gets_a_password(acme: Workspace) -> None:
    hosts = hostile_hosts(acme.bitbucket.host)
    acme.get()  # A cached token must not be found by another host, either.
    before = len(acme.bitbucket.seen)
    for host in hosts:
        data = b"protocol=https\nhost=" + host + b"\npath=acme/widgets.git\n\n"
        done = acme.machine.bbjwt("get", data=data)
        assert (done.stdout, done.stderr) == ("", ""), host
    assert len(acme.bitbucket.seen) == before


def test_host_in_another_case_is_the_same_host(acme: Workspace) -> None:
    data = request(acme.url).replace("localhost", "LocalHost")

    assert "password" in answer(acme.machine.bbjwt("get", data=data))


def test_port_443_is_dropped() -> None:
    assert normal_host("BitBucket.org:443") == "bitbucket.org"
    assert normal_host("bitbucket.org:4430") == "bitbucket.org:4430"


@pytest.mark.parametrize(
    "url",
    [
        "https://bitbucket.org/acme/widgets",
        "https://bitbucket.org:443/acme/widgets.git",
        "https://someone@bitbucket.org/acme/widgets.git",
        "HTTPS://BitBucket.org/Acme/Widgets",
        "ssh://git@bitbucket.org/acme/widgets.git",
        "git@bitbucket.org:acme/widgets.git",
        "git@ssh.bitbucket.org:acme/widgets.git",
        "ssh://git@ssh.bitbucket.org/acme/widgets.git",
        "ssh://git@SSH.bitbucket.org:22/acme/widgets.git",
        "ssh://git@bitbucket.org:22/acme/widgets",
        "git+ssh://git@bitbucket.org/acme/widgets.git",
        "git+ssh://git@ssh.bitbucket.org/acme/widgets.git",
        "ssh://git@altssh.bitbucket.org:443/acme/widgets.git",
    ],
)
def test_urls_people_write(url: str) -> None:
    repository = parse_url(url)

    assert (repository.host, repository.full_name) == ("bitbucket.org", "acme/widgets")


@pytest.mark.parametrize(
    "url",
    [
        "acme/widgets",
        "http://bitbucket.org/acme/widgets",
        "ssh://evil@bitbucket.org/a/b",
        "https:///a/b",
        "git@:a/b",
        "git@x@bitbucket.org:a/b",
        "ssh://git@bitbucket.org:443/a/b",
        "ssh://git@altssh.bitbucket.org/a/b:443",
        "ssh://git@bitbucket.org:7999/a/b",
        "git+https://bitbucket.org/a/b",
        "",
    ],
)
def test_urls_that_name_no_repository(url: str) -> None:
    with pytest.raises(NotARepositoryError):
        parse_url(url)
