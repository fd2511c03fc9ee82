"""Sources of installations, and the choice of the one that serves a repository."""

from __future__ import annotations

import base64
import errno
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import platformdirs
import pytest

from git_credential_bbjwt.core.files import APP_NAME, site_config_folder, user_cache_folder, user_config_folder
from git_credential_bbjwt.core.options import HelperOptions
from git_credential_bbjwt.core.source import Payload, Registry, host_folder, host_of
from git_credential_bbjwt.core.sources import read_sources
from tests.conftest import COMMAND, INSTALLED, PROJECT, Machine, Workspace, answer, assert_quits, cannot, need, request
from tests.emulator import Emulator


def issuer(bitbucket: Emulator) -> str:
    """Return the app that the last token was minted for."""
    return str(bitbucket.helper_requests()[-1].claims["iss"])


def payload_file(acme: Workspace, path: Path, key: str) -> Path:
    """A payload of another app on acme."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(acme.bitbucket.payload(acme.bitbucket.install("acme", key=key))))
    path.chmod(0o600)
    return path


def test_a_file_is_settled_once_no_change_could_go_unnoticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "payload"
    file.write_bytes(b"{}")
    source = Payload.in_file(str(file))

    def is_settled(seconds_later: float) -> bool:
        monkeypatch.setattr("time.time", lambda: file.stat().st_ctime + seconds_later if file.exists() else 0.0)
        return source.is_settled()

    assert (is_settled(0.04), is_settled(0.06)) == (False, True)
    file.write_bytes(b"[]")
    assert not is_settled(0.06)
    file.unlink()
    assert not is_settled(0.06)


def test_the_first_source_that_serves_the_repository_is_used(acme: Workspace, tmp_path: Path) -> None:
    machine = acme.machine
    option = payload_file(acme, tmp_path / "option.json", "by-option")
    variable = payload_file(acme, tmp_path / "variable.json", "by-variable")
    credential = payload_file(acme, tmp_path / "credentials/bbjwt-installation", "by-credential")
    for key, system in (("by-user", []), ("by-system", ["--system"])):
        payload = payload_file(acme, tmp_path / f"{key}.json", key)
        machine.bbjwt("register", "--insecure-storage", *system, payload)
    machine.environment["BBJWT_INSTALLATION"] = str(variable)
    machine.environment["CREDENTIALS_DIRECTORY"] = str(credential.parent)

    used = []
    acme.get("--installation", str(option))
    used.append(issuer(acme.bitbucket))
    for variable_to_drop in ("BBJWT_INSTALLATION", "CREDENTIALS_DIRECTORY"):
        acme.get()
        used.append(issuer(acme.bitbucket))
        del machine.environment[variable_to_drop]
    acme.get()
    used.append(issuer(acme.bitbucket))
    machine.bbjwt("unregister", "acme")
    acme.get()
    used.append(issuer(acme.bitbucket))
    assert used == ["by-option", "by-variable", "by-credential", "by-user", "by-system"]


def test_folder_of_credentials_without_the_helpers_is_no_error(acme: Workspace, tmp_path: Path) -> None:
    done = acme.get("--verbose", CREDENTIALS_DIRECTORY=str(tmp_path))

    assert "password" in answer(done)
    foreign = acme.machine.get("https://github.com/a/b", CREDENTIALS_DIRECTORY=str(tmp_path), BBJWT_INSTALLATION=None)
    assert (foreign.stdout, foreign.stderr) == ("", "")
    ours = acme.get(CREDENTIALS_DIRECTORY=str(tmp_path), BBJWT_INSTALLATION=None, check=False)
    assert (ours.returncode, ours.stdout, ours.stderr) == (0, "", "")


def test_a_payload_is_read_up_to_its_limit_and_no_further(acme: Workspace) -> None:
    payload = acme.installation.read_bytes()
    acme.installation.write_bytes(payload.ljust(8 * 1024 * 1024))
    assert "password" in answer(acme.get("--token-store=none"))

    acme.installation.write_bytes(payload.ljust(8 * 1024 * 1024 + 1))
    assert "far too large" in acme.get("--token-store=none", check=False).stderr


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        (b"", False),
        (b'"HTTPS://Host"', True),
        (b'"\\u00e9"', False),
        (b'"\\u00e9\\u00E8"', False),
        (b'"\\u00e9\\u0068ost"', True),
        (b"\\u0068ost", True),
    ],
)
def test_text_that_may_name_the_host_by_escapes_needs_a_parser(text: bytes, holds: bool) -> None:
    assert Payload("here", text).may_name("host") == holds


@pytest.mark.parametrize(
    ("host", "folder"),
    [
        ("bitbucket.org", "bitbucket.org"),
        ("localhost:8443", "localhost=8443"),
        ("[::1]:8443", "[==1]=8443"),
        ("..", ""),
        (".", ""),
        ("", ""),
        ("a/b", ""),
        ("a=b", ""),
        ("a\0", ""),
        ("Bitbucket.org", ""),
        ("a" * 256, ""),
    ],
)
def test_folder_of_a_host_has_the_same_host(host: str, folder: str) -> None:
    assert host_folder(host) == folder
    assert host_of(folder) == (host if folder else "")


def test_registry_that_is_not_trusted_concerns_no_host(tmp_path: Path) -> None:
    registry = tmp_path / "installations"
    registry.mkdir()
    registry.chmod(0o777)
    (registry / host_folder("bitbucket.org")).mkdir()
    source = Registry(str(registry))

    assert source.problem is not None
    assert not source.concerns("bitbucket.org")


def test_payload_may_name_only_the_hosts_in_it() -> None:
    payload = Payload("here", b'{"baseUrl": "https://bitbucket.example:8443", "baseApiUrl": "https://[::1]:8444"}')

    for host in ("bitbucket.example:8443", "bitbucket.example", "[::1]:8444", "[::1]"):
        assert payload.may_name(host), host
    for host in ("other.example:8443", "other.example", "[::2]:8444", "8443"):
        assert payload.may_name(host) == (host == "8443"), host


def test_the_variable_may_hold_the_json_itself(acme: Workspace) -> None:
    acme.installation.unlink()
    payload = acme.bitbucket.payload(acme.app)
    for text in (json.dumps(payload), "\n " + json.dumps({"clientInfo": payload}, indent=1)):
        assert "password" in answer(acme.get("--token-store=none", BBJWT_INSTALLATION=text))


def test_a_payload_serves_only_the_workspace_it_names(acme: Workspace) -> None:
    beta = acme.bitbucket.host_repository("beta/tools")
    other = acme.bitbucket.install("beta")
    acme.machine.bbjwt("register", "--insecure-storage", "-", data=json.dumps(acme.bitbucket.payload(other)))

    acme.machine.get(acme.bitbucket.url(beta))
    assert acme.bitbucket.helper_requests()[-1].claims["sub"] == other.client_key


def test_a_payload_that_names_no_workspace_serves_any(acme: Workspace) -> None:
    acme.write_installation(principal={"type": "user"})

    assert "password" in answer(acme.get())


def test_a_workspace_in_another_case_is_the_same(acme: Workspace) -> None:
    principal: dict[str, Any] = acme.bitbucket.payload(acme.app)["principal"]
    acme.write_installation(principal=principal | {"username": "ACME"})

    assert "password" in answer(acme.machine.get(acme.url.replace("acme", "aCMe")))


def test_the_uuid_of_another_workspace_is_not_served(acme: Workspace) -> None:
    url = f"{acme.bitbucket.base_url}/{{12345678-1234-1234-1234-123456789abc}}/{acme.widgets.uuid}"
    done = acme.machine.get(url)

    assert (done.stdout, done.stderr) == ("", "")


@pytest.mark.parametrize(
    ("mode", "warned"), [(0o600, False), (0o400, False), (0o640, True), (0o644, True), (0o604, True)]
)
def test_a_payload_others_can_read_gets_a_warning(acme: Workspace, mode: int, warned: bool) -> None:
    acme.installation.chmod(mode)
    done = acme.get()

    assert "password" in answer(done)
    assert ("others on this machine can read" in done.stderr) == warned
    assert acme.get().stderr == ""  # Said with a mint, not with every cached answer.


@pytest.mark.parametrize("what", ["payload", "JWT"])
@pytest.mark.parametrize("mode", [0o600, 0o644])
def test_exec_warns_of_a_secret_that_others_can_read(acme: Workspace, tmp_path: Path, what: str, mode: int) -> None:
    jwt = tmp_path / "jwt"
    jwt.write_text(acme.machine.bbjwt("jwt", "acme").stdout)
    for one, path in {"payload": acme.installation, "JWT": jwt}.items():
        path.chmod(mode if one == what else 0o600)
    done = acme.machine.bbjwt("exec", "--", "true", BBJWT_JWT_FILE=str(jwt))

    warned = {"payload": acme.installation, "JWT": jwt}.get(what) if mode == 0o644 else None
    expected = f"git-credential-bbjwt: warning: others on this machine can read {warned}: run chmod 600 on it, or "
    assert [line for line in done.stderr.splitlines() if "can read" in line] == (
        [] if warned is None else [expected + "mount it with mode 0400"]
    )


def broken_source(acme: Workspace, name: str) -> str:
    """A value of BBJWT_INSTALLATION that cannot be used."""
    folder = acme.machine.home
    (folder / "broken.json").write_text("{")
    os.mkfifo(folder / "fifo")
    return {"missing": "/nowhere/x.json", "json": "{,", "folder": str(folder)}.get(name, str(folder / name))


@pytest.mark.parametrize("name", ["missing", "json", "folder", "broken.json", "fifo"])
def test_broken_source_stops_git_only_for_bitbucket(acme: Workspace, name: str) -> None:
    acme.machine.environment["BBJWT_INSTALLATION"] = broken_source(acme, name)
    cloud = acme.machine.get("https://bitbucket.org/acme/widgets", check=False)
    elsewhere = acme.machine.get("https://github.com/acme/widgets", check=False)

    assert (cloud.stdout, cloud.returncode) == ("quit=1\n", 1)
    assert cloud.stderr.startswith("git-credential-bbjwt: error: ")
    assert elsewhere.stdout == ""
    if name in ("json", "broken.json"):
        assert (elsewhere.stderr, elsewhere.returncode) == ("", 0)
    else:
        # The source might be for any host, so there is a warning, and git asks other helpers.
        assert elsewhere.stderr.startswith("git-credential-bbjwt: warning: cannot use the installation in ")
        assert (elsewhere.stderr.count("\n"), elsewhere.returncode) == (1, 0)


def test_a_broken_source_stops_git_for_a_host_that_is_named_by_an_option(acme: Workspace) -> None:
    url = "https://git.example/acme/widgets"
    acme.write_installation(homepage="https://git.example")
    whole = acme.machine.get("https://git.example", "--host=git.example")
    assert (whole.stdout, whole.stderr) == ("", "")  # The payload was read, and it is for another host.
    acme.machine.environment["BBJWT_INSTALLATION"] = broken_source(acme, "missing")

    assert acme.machine.get(url, "--host=git.example", check=False).stdout == "quit=1\n"
    assert acme.machine.get(url, "--host=other.example").stdout == ""


def test_registered_installation_beside_a_broken_source_serves_only_its_own_hosts(acme: Workspace) -> None:
    acme.machine.bbjwt("register", "--insecure-storage", acme.installation)
    acme.machine.environment["BBJWT_INSTALLATION"] = broken_source(acme, "missing")
    elsewhere = acme.machine.get("https://github.com/acme/widgets")

    assert elsewhere.stdout == ""
    assert elsewhere.stderr.startswith("git-credential-bbjwt: warning: cannot use the installation in ")


@pytest.mark.parametrize("damage", ["cut short", "of another product", "a number for a key"])
def test_a_broken_source_that_names_the_host_stops_git_there(acme: Workspace, damage: str) -> None:
    if damage == "cut short":
        acme.installation.write_text(acme.installation.read_text()[:-5])
    elif damage == "of another product":
        acme.write_installation(productType="jira")
    else:
        acme.write_installation(key=5)
    done = acme.get(check=False)

    assert (done.stdout, done.returncode) == ("quit=1\n", 1)
    assert acme.app.shared_secret not in done.stderr


def test_jwt_that_cannot_be_read_stops_git_for_its_hosts(acme: Workspace) -> None:
    done = acme.get(check=False, BBJWT_JWT_FILE="/nowhere/jwt")

    assert (done.stdout, done.returncode) == ("quit=1\n", 1)
    assert "BBJWT_JWT_FILE" in done.stderr


def test_file_of_root_that_this_user_may_read_is_not_exposed(acme: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    # systemd lets a service in by an access control list, Kubernetes by a group; the file is root's.
    if os.geteuid() != 0:
        cannot("only root can own the file as root")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(acme.installation.parent))
    acme.installation.rename(acme.installation.with_name("bbjwt-installation"))
    monkeypatch.setattr(os, "geteuid", lambda: 65_534)
    for mode, exposed in ((0o440, False), (0o444, True)):
        acme.installation.with_name("bbjwt-installation").chmod(mode)
        (source,) = [one for one in read_sources(HelperOptions()).sources if isinstance(one, Payload)]
        assert (source.problem, source.exposed) == (None, exposed)


@pytest.mark.parametrize("slip", ["group can write", "others can write", "of another user"])
def test_a_payload_that_others_can_change_is_refused(acme: Workspace, another_user: int, slip: str) -> None:
    modes = {"group can write": 0o620, "others can write": 0o602, "of another user": 0o644}
    acme.installation.chmod(modes[slip])
    if slip == "of another user":
        os.chown(acme.installation, another_user, another_user)
    jwt = {"BBJWT_JWT": "e30.e30.e30"}
    for done in (acme.get(check=False), acme.get(check=False, also=jwt), acme.get("--verbose", check=False)):
        assert (done.returncode, "password" in done.stdout) == (1, False)
        assert "chmod go-w" in done.stderr
        assert "$(cat FILE)" in done.stderr
    assert acme.machine.bbjwt("register", "--insecure-storage", acme.installation, check=False).returncode == 1
    assert acme.bitbucket.helper_requests() == []


SLIPS: dict[str, str] = {
    "an array": '[{"sharedSecret": "the-secret-in-the-variable"}]',
    "quotes of an env file": '\'{"sharedSecret": "the-secret-in-the-variable"}\'',
    "cut": 'haredSecret": "the-secret-in-the-variable"}',
    "the secret alone": "the-secret-in-the-variable",
    "base64 of something else": base64.b64encode(b"the-secret-in-the-variable").decode(),
    "longer than a path": "the-secret-in-the-variable" * 400,
    "a path and a secret": "/no/such/the-secret-in-the-variable",
}


@pytest.mark.parametrize("slip", SLIPS)
def test_wrong_value_of_a_variable_is_not_shown(acme: Workspace, slip: str) -> None:
    value = SLIPS[slip]
    secrets = {value[:40], "the-secret-in-the-variable"}
    url = "https://bitbucket.org/acme/widgets"
    runs = [acme.machine.get(url, check=False, also={"BBJWT_INSTALLATION": value})]
    if slip in ("the secret alone", "a path and a secret"):
        for variable in ("BBJWT_JWT_FILE", "BBJWT_JWT"):
            runs.append(acme.machine.get(url, check=False, also={variable: value, "BBJWT_INSTALLATION": None}))
        runs.append(acme.machine.get(url, f"--installation={value}", check=False))
        runs.append(acme.machine.bbjwt("register", value, check=False))
        runs.append(acme.machine.bbjwt("doctor", url, check=False, BBJWT_INSTALLATION=value))
    for done in runs:
        assert done.returncode == 1
        for secret in secrets:
            assert secret not in done.stdout + done.stderr


@pytest.mark.parametrize("form", ["base64 in lines", "byte order mark", "white space", "path"])
def test_a_payload_in_a_variable_in_all_its_forms(acme: Workspace, form: str) -> None:
    plain = acme.installation.read_bytes()
    value = {
        "base64 in lines": base64.encodebytes(plain),
        "byte order mark": b"\xef\xbb\xbf" + plain,
        "white space": b"\n  " + base64.b64encode(b"\xef\xbb\xbf " + plain) + b"\n",
        "path": f" {acme.installation}\r\n".encode(),
    }[form]

    assert "password" in answer(acme.get(BBJWT_INSTALLATION=value.decode()))


@pytest.mark.parametrize("field", ["key", "clientKey", "sharedSecret"])
def test_error_for_an_incomplete_payload_names_the_missing_member(acme: Workspace, field: str) -> None:
    acme.write_installation(**{field: ""})
    done = acme.get(check=False)

    assert done.stdout == "quit=1\n"
    assert field in done.stderr


def test_a_host_spelled_with_json_escapes_is_known(acme: Workspace) -> None:
    text = acme.installation.read_text()
    acme.installation.write_text(text.replace("https://localhost", "https:\\/\\/\\u006c\\u006Fcalhost"))

    assert "password" in answer(acme.get())


def test_broken_entry_stops_only_its_own_workspace(acme: Workspace) -> None:
    acme.machine.bbjwt("register", "--insecure-storage", acme.installation)
    (entry,) = (acme.machine.home / ".config/git-credential-bbjwt/installations").glob("*/acme")
    for broken in ("{", "[]", "5", "{}", "\0", '{"kind": "connect"}', "[" * 100_000):
        entry.write_text(broken)
        done = acme.get("--token-store=none", check=False, BBJWT_INSTALLATION=None)
        assert (done.returncode, done.stdout) == (1, "quit=1\n")
        assert "the entry of acme is broken" in done.stderr
    assert "password" in answer(acme.get())
    remedy = done.stderr.partition("register again: ")[2].splitlines()[0]
    elsewhere = acme.machine.get(f"{acme.bitbucket.base_url}/beta/tools", BBJWT_INSTALLATION=None)
    assert (elsewhere.stdout, elsewhere.stderr) == ("", "")
    acme.machine.run("sh", "-c", remedy)
    acme.machine.bbjwt("register", "--insecure-storage", acme.installation)
    assert "password" in answer(acme.get("--token-store=none", BBJWT_INSTALLATION=None))


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"HOME": "/tmp"},
        {"HOME": "/"},
        {"HOME": "/tmp", "XDG_CONFIG_HOME": "/x", "XDG_CACHE_HOME": "/y", "XDG_CONFIG_DIRS": "/z:/etc/xdg"},
        {"HOME": "/tmp", "XDG_CONFIG_HOME": "x", "XDG_CACHE_HOME": "", "XDG_CONFIG_DIRS": "rel:/z"},
    ],
)
def test_folders_are_those_of_platformdirs(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_CONFIG_DIRS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    assert user_config_folder() == platformdirs.user_config_dir(APP_NAME)
    assert user_cache_folder() == platformdirs.user_cache_dir(APP_NAME)
    assert site_config_folder() == platformdirs.site_config_dir(APP_NAME)


@pytest.mark.parametrize("part", [".", "*", "*/acme"])
@pytest.mark.parametrize("spoilt", ["group can write", "all can write", "of another user", "a link"])
def test_a_registry_that_others_can_write_to_is_not_used(
    acme: Workspace, another_user: int, part: str, spoilt: str
) -> None:
    # Its base URL decides where a JWT goes.
    acme.machine.bbjwt("register", "--insecure-storage", acme.installation)
    del acme.machine.environment["BBJWT_INSTALLATION"]
    registry = acme.machine.home / ".config/git-credential-bbjwt/installations"
    (touched,) = registry.glob(part) if part != "." else [registry]
    if spoilt == "of another user":
        os.chown(touched, another_user, another_user)
    elif spoilt == "a link":
        touched.rename(acme.machine.home / "elsewhere")
        touched.symlink_to(acme.machine.home / "elsewhere")
    else:
        touched.chmod(touched.stat().st_mode | (0o020 if spoilt == "group can write" else 0o022))
    done = acme.get(check=False)

    assert "password" not in done.stdout
    assert str(registry) in done.stderr
    assert acme.bitbucket.seen == []
    # Registering again does not make it trusted.
    before = sorted(registry.rglob("*"))
    again = json.dumps(acme.bitbucket.payload(acme.app))
    refused = acme.machine.bbjwt("register", "--insecure-storage", "-", data=again, check=False)
    assert refused.returncode == 1
    assert str(registry) in refused.stderr
    assert sorted(registry.rglob("*")) == before


def test_error_for_an_unreadable_payload_has_the_systems_reason(acme: Workspace) -> None:
    below = acme.installation / "file"
    done = acme.machine.bbjwt("--installation", below, "list", check=False)

    assert done.returncode == 1
    assert os.strerror(errno.ENOTDIR) in done.stderr


def test_list_fails_if_an_entry_is_a_dangling_link(acme: Workspace) -> None:
    acme.machine.bbjwt("register", "--insecure-storage", acme.installation)
    (entry,) = (acme.machine.home / ".config/git-credential-bbjwt/installations").glob("*/acme")
    entry.unlink()
    entry.symlink_to("nowhere")
    done = acme.machine.bbjwt("list", check=False, BBJWT_INSTALLATION=None)

    assert done.returncode == 1
    assert str(entry) in done.stderr


@pytest.mark.parametrize(
    ("value", "reason", "remedy"),
    [
        ("/nowhere/payload.json", os.strerror(errno.ENOENT), "check the path"),
        ("/etc/hostname/payload.json", os.strerror(errno.ENOTDIR), "check the path"),
        ("~/payload.json", "~ is not a folder", "home folder"),
        ("payload.json", "neither JSON", "set it to"),
        ("{}", "not a payload", "whole payload"),
        ('{"oauthconsumer": {}}', "not a payload", "whole payload"),
    ],
)
def test_cause_and_remedy_of_a_variable_that_cannot_be_used(
    acme: Workspace, value: str, reason: str, remedy: str
) -> None:
    done = acme.machine.get("https://bitbucket.org/acme/widgets", check=False, BBJWT_INSTALLATION=value)

    assert (done.returncode, done.stdout) == (1, "quit=1\n")
    assert "BBJWT_INSTALLATION" in done.stderr
    assert reason in done.stderr
    assert remedy in done.stderr.partition("hint: ")[2]
    assert value not in done.stderr.replace("{}", "") or value == "{}"


CAUSES: dict[str, tuple[str, str]] = {
    "folder": ("it is a folder", "container runtimes"),
    "fifo": ("not a regular file", "regular file"),
    "empty": ("it is empty", "write the payload to"),
    "writable": ("others can write to it (mode 0666)", "chmod go-w"),
    "cut": ("this is not a JSON object", "payload"),
    "several": ("this is more than one payload", "one payload"),
    "large": ("far too large", "one payload"),
}


@pytest.mark.parametrize(
    ("cause", "how"), [*((cause, "variable") for cause in CAUSES), ("folder", "option"), ("writable", "systemd")]
)
def test_cause_and_remedy_of_a_file_that_cannot_be_used(acme: Workspace, cause: str, how: str) -> None:
    path = acme.machine.home / "bbjwt-installation"
    if cause == "folder":
        path.mkdir()
    elif cause == "fifo":
        os.mkfifo(path)
    else:
        payload = acme.installation.read_bytes()
        others = {"empty": b" \n", "cut": payload[:-9], "several": payload * 2, "large": payload.ljust(9_000_000)}
        path.write_bytes(others.get(cause, payload))
        path.chmod(0o666 if cause == "writable" else 0o600)
    options = ["--installation", str(path)] if how == "option" else []
    also = {"variable": {"BBJWT_INSTALLATION": str(path)}, "systemd": {"CREDENTIALS_DIRECTORY": str(path.parent)}}
    environment = {"BBJWT_INSTALLATION": None} | also.get(how, {})
    done = acme.machine.get("https://bitbucket.org/acme/widgets", *options, check=False, also=environment)

    reason, remedy = CAUSES[cause]
    assert (done.returncode, done.stdout) == (1, "quit=1\n")
    assert str(path) in done.stderr
    assert reason in done.stderr
    assert remedy in done.stderr.partition("hint: ")[2]


@pytest.mark.parametrize("is_anothers", [False, True])
def test_remedy_for_a_file_can_be_pasted_whatever_its_name(
    acme: Workspace, another_user: int, is_anothers: bool
) -> None:
    path = acme.machine.home / "it's a folder" / "$HOME"
    path.parent.mkdir()
    acme.installation.rename(path)
    path.chmod(0o666)
    if is_anothers:
        os.chown(path, another_user, another_user)
    done = acme.get(check=False, BBJWT_INSTALLATION=str(path))
    acme.machine.run("sh", "-euc", done.stderr.rpartition("hint: ")[2].partition("; or")[0])

    assert "password" in answer(acme.get(BBJWT_INSTALLATION=str(path)))


def test_remedy_for_a_registry_can_be_pasted_whatever_its_path(unregistered: Workspace) -> None:
    folder = unregistered.machine.home / "it's a folder"
    unregistered.machine.environment["XDG_CONFIG_HOME"] = str(folder)
    unregistered.machine.bbjwt("register", "--insecure-storage", unregistered.installation)
    (folder / "git-credential-bbjwt/shared-secrets").chmod(0o755)
    done = unregistered.get(check=False)

    assert_quits(done, "cannot read the shared secret", "hint: run: chmod 700 ")
    unregistered.machine.run("sh", "-euc", done.stderr.rpartition("hint: run: ")[2])
    assert "password" in answer(unregistered.get())


def test_empty_file_of_a_jwt_needs_the_jwt(acme: Workspace) -> None:
    path = acme.machine.home / "jwt"
    path.touch(mode=0o600)

    assert_quits(acme.get(check=False, BBJWT_JWT_FILE=str(path)), f"write the JWT to {path}")


def test_payload_in_utf_16_is_known_for_its_host(acme: Workspace) -> None:
    """PowerShell's redirection writes UTF-16."""
    acme.installation.write_bytes(acme.installation.read_text().encode("utf-16"))

    assert "password" in answer(acme.get())


def without_root(scene: Workspace, packages: Path, *words: str, uid: int, data: str = "") -> Any:
    """Run the command of the folder ``packages`` as another user, with a Python of the system's."""
    python = Path("/usr/bin/python3")
    if not python.exists():
        cannot("there is no Python that everybody can run")
    run = f"import sys; sys.path.insert(0, {str(packages)!r}); from git_credential_bbjwt.entry import main; "
    run += "sys.argv[0] = '/opt/bin/git-credential-bbjwt'; main(sys.argv[1:])"
    command = [need("setpriv"), f"--reuid={uid}", f"--regid={uid}", "--clear-groups", str(python), "-I", "-c", run]
    return scene.machine.run(*command, *words, data=data, check=False)


@pytest.fixture
def everybodys() -> Iterator[Path]:
    """A folder that everybody can enter, with the package: it may be below a home that only its user can enter."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    shutil.copytree(Path(INSTALLED) / "git_credential_bbjwt", folder / "git_credential_bbjwt")
    yield folder
    shutil.rmtree(folder)


def test_payload_that_this_user_cannot_read_names_the_mount_option(
    acme: Workspace, another_user: int, everybodys: Path
) -> None:
    folder = everybodys / "secrets"
    folder.mkdir(mode=0o700)
    secret = folder / "payload.json"
    secret.write_bytes(acme.installation.read_bytes())
    secret.chmod(0o400)
    acme.machine.environment["BBJWT_INSTALLATION"] = str(secret)
    asked = "protocol=https\nhost=bitbucket.org\npath=acme/widgets\n\n"
    closed = without_root(acme, everybodys, "get", uid=another_user, data=asked)
    folder.chmod(0o711)
    done = without_root(acme, everybodys, "get", uid=another_user, data=asked)

    assert (closed.stdout, done.stdout) == ("quit=1\n", "quit=1\n")
    for one in (closed, done):
        assert os.strerror(errno.EACCES) in one.stderr
    assert "folders of that path" in closed.stderr
    assert f"chown {another_user} {secret}" in done.stderr
    assert f"uid={another_user}" in done.stderr


@pytest.mark.parametrize(
    ("words", "again"),
    [
        ("--app the-key configure --system --exclusive", "--app … configure --system --exclusive"),
        ("unconfigure --system", "unconfigure --system"),
        ("register --system --insecure-storage -", "register --system --insecure-storage …"),
        ("unregister --system acme", "unregister --system …"),
    ],
)
def test_command_that_needs_root_names_the_command_with_sudo(
    unregistered: Workspace, another_user: int, everybodys: Path, words: str, again: str
) -> None:
    home, system = everybodys / "home", everybodys / "etc"
    home.mkdir()
    os.chown(home, another_user, another_user)
    system.mkdir()
    del unregistered.machine.environment["GIT_CONFIG_NOSYSTEM"]
    unregistered.machine.environment |= {"XDG_CONFIG_DIRS": str(system), "GIT_CONFIG_SYSTEM": str(system / "gitconfig")}
    unregistered.machine.bbjwt("register", "--system", "--insecure-storage", unregistered.installation)
    unregistered.machine.bbjwt("configure", "--system")
    unregistered.machine.environment["HOME"] = str(home)
    unregistered.machine.home = home
    before = {path: path.read_bytes() for path in system.rglob("*") if path.is_file()}
    payload = unregistered.installation.read_text()
    done = without_root(unregistered, everybodys, *words.split(), uid=another_user, data=payload)

    assert done.returncode == 1
    assert str(system) in done.stderr
    assert f"hint: run it as root: sudo /opt/bin/git-credential-bbjwt {again}\n" in done.stderr
    assert {path: path.read_bytes() for path in system.rglob("*") if path.is_file()} == before


def test_registry_in_a_user_namespace_is_trusted_if_nobody_else_can_write_above(acme: Workspace) -> None:
    """As in toolbox, distrobox or rootless podman, where /home belongs to the overflow user."""
    unshare = need("unshare")
    if os.geteuid() != 0:
        cannot("only root can give a folder to somebody else")
    places = [
        place
        for place in (PROJECT / ".cache", Path.home(), Path("/var/lib"))
        if not any(folder.stat().st_mode & 0o022 for folder in (place, *place.parents))
    ]
    above = Path(tempfile.mkdtemp(dir=places[0] if places else cannot("others can write to every folder")))
    try:
        above.chmod(0o755)
        theirs = above / "home"
        (theirs / "me").mkdir(parents=True)
        os.chown(theirs, 12_345, 12_345)
        machine = Machine(theirs / "me", acme.machine.environment | {"HOME": str(theirs / "me")})
        inside = [unshare, "--user", "--map-root-user", str(COMMAND)]
        if machine.run(unshare, "--user", "--map-root-user", "true", check=False).returncode:
            cannot("there are no user namespaces here")
        machine.run(*inside, "register", "--insecure-storage", acme.installation)
        del machine.environment["BBJWT_INSTALLATION"]
        asked = request(acme.url) + "\n"

        assert "password" in answer(machine.run(*inside, "--token-store=none", "get", data=asked))
        above.chmod(0o775)
        refused = machine.run(*inside, "--token-store=none", "get", data=asked, check=False)
        assert "password" not in refused.stdout
        assert "belongs to another user" in refused.stderr
        # Outside the namespace, the folder belongs to another user.
        above.chmod(0o755)
        done = machine.bbjwt("get", data=asked, check=False)
        assert "password" not in done.stdout
    finally:
        shutil.rmtree(above)


# No source at all.


@pytest.mark.parametrize(
    ("url", "options", "told"),
    [
        ("https://bitbucket.org/acme/widgets", (), True),
        ("https://git.example/acme/widgets", ("--host=git.example",), True),
        ("https://git.example/acme/widgets", (), False),
        ("http://bitbucket.org/acme/widgets", (), False),
        ("https://github.com/acme/widgets", (), False),
    ],
)
def test_machine_without_any_source_says_so_in_one_line(
    machine: Machine, url: str, options: tuple[str, ...], told: bool
) -> None:
    done = machine.get(url, *options)

    assert (done.stdout, done.returncode) == ("", 0)
    assert len(done.stderr.splitlines()) == told
    assert ("BBJWT_INSTALLATION" in done.stderr and "register" in done.stderr) == told


def test_machine_with_a_source_for_another_host_is_silent(acme: Workspace) -> None:
    payload = acme.installation.read_text()
    assert acme.machine.get("https://bitbucket.org/acme/widgets").stderr == ""
    del acme.machine.environment["BBJWT_INSTALLATION"]
    assert "BBJWT_INSTALLATION" in acme.machine.get("https://bitbucket.org/acme/widgets").stderr
    acme.machine.bbjwt("register", "--insecure-storage", "-", data=payload)
    assert acme.machine.get("https://bitbucket.org/acme/widgets").stderr == ""
    acme.machine.bbjwt("unregister", "acme")
    assert "BBJWT_INSTALLATION" in acme.machine.get("https://bitbucket.org/acme/widgets").stderr
