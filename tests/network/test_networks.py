"""Real networks: the helper gets through wherever git does, and lost packets only cause a delay."""

from __future__ import annotations

import json
import os
import re
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import pytest
import trustme

from git_credential_bbjwt.git.http_settings import CHOOSE_THE_WAY, Settings
from git_credential_bbjwt.network.addresses import Address, first_to_connect
from git_credential_bbjwt.network.connection import Connection, Network, SilentError
from git_credential_bbjwt.network.connections import _patience
from git_credential_bbjwt.network.route import NOT_HONOURED
from git_credential_bbjwt.system.budget import Budget
from tests.conftest import COMMAND, PROJECT, Machine, Workspace, answer, assert_quits, ends_within, free_port, request
from tests.emulator import Emulator, Fault, HostedRepository, IssuedToken
from tests.proxy import Proxy, SocksProxy

# Real git compared with the helper.


@dataclass
class Situation:
    """The surroundings of git and the helper: git's settings, an environment, and the server."""

    machine: Machine
    bitbucket: Emulator
    widgets: HostedRepository
    folder: Path
    stack: ExitStack
    settings: dict[str, str] = field(default_factory=dict)
    environment: dict[str, str | None] = field(default_factory=dict)
    arguments: list[str] = field(default_factory=list)
    base: str = ""
    api: str = ""
    cwd: Path | None = None

    def set(self, key: str, value: object) -> None:
        """Set something in the user's git configuration."""
        self.machine.git("config", "--global", "--add", key, str(value))

    def proxy(self, userinfo: str = "", context: ssl.SSLContext | None = None) -> Proxy:
        """A proxy that works."""
        return self.stack.enter_context(Proxy(userinfo, context=context))

    def socks(self, userinfo: str = "") -> SocksProxy:
        """A SOCKS proxy that works."""
        proxy = SocksProxy(userinfo)
        self.stack.enter_context(proxy)
        return proxy

    def tls_proxy(self, clients: trustme.CA | None = None) -> tuple[Proxy, Path]:
        """An https proxy, and its authority."""
        authority = trustme.CA()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("localhost").configure_cert(context)
        if clients is not None:
            clients.configure_trust(context)
            context.verify_mode = ssl.CERT_REQUIRED
        return self.proxy(context=context), self.file("proxy-authority.pem", authority.cert_pem.bytes())

    def file(self, name: str, data: bytes) -> Path:
        """A file that only this user can read."""
        path = self.folder / name
        path.write_bytes(data)
        path.chmod(0o600)
        return path

    def another_server(self, *, name: str = "localhost", clients: trustme.CA | None = None) -> None:
        """Use another Bitbucket in place of the usual one."""
        self.bitbucket = self.stack.enter_context(Emulator(self.folder / "other", name=name, clients=clients))
        self.bitbucket.install("acme")
        self.widgets = self.bitbucket.host_repository("acme/widgets")
        self.trust(self.bitbucket.ca_file)
        self.base = self.bitbucket.base_url.replace("localhost", name)
        self.api = self.bitbucket.base_api_url.replace("localhost", name)

    def trust(self, ca_file: Path | None) -> None:
        """Have git and the helper trust this authority by a variable; None: no authority."""
        value = None if ca_file is None else str(ca_file)
        self.environment |= {"GIT_SSL_CAINFO": value, "SSL_CERT_FILE": None}

    @property
    def host(self) -> str:
        return urlsplit(self.base).netloc

    def git_gets_through(self) -> bool:
        """Return whether git itself gets through, with a good password."""
        token = "a-token-of-this-test"  # the emulator's
        self.bitbucket.tokens[token] = IssuedToken("acme", {"repository"}, self.widgets.uuid, time.time() + 600)
        helper = f"!f() {{ echo username=x-token-auth; echo password={token}; }}; f"
        section = f"credential.{self.base}.helper"
        words = [*self.arguments, "-c", f"{section}=", "-c", f"{section}={helper}"]
        return self._git(*words, "ls-remote", f"{self.base}/acme/widgets.git").returncode == 0

    def helper_gets_through(self) -> subprocess.CompletedProcess[str]:
        """Return the helper's answer to git."""
        payload = self.bitbucket.payload(next(iter(self.bitbucket.apps.values())))
        self.environment["BBJWT_INSTALLATION"] = json.dumps(payload | {"baseUrl": self.base, "baseApiUrl": self.api})
        section = f"credential.{self.base}.helper"
        words = [*self.arguments, "-c", f"{section}=", "-c", f"{section}=bbjwt --token-store none --timeout 30"]
        asked = request(f"{self.base}/acme/widgets.git") + "\n"
        return self._git(*words, "-c", "credential.useHttpPath=true", "credential", "fill", data=asked)

    def _git(self, *words: str, data: str = "") -> subprocess.CompletedProcess[str]:
        environment = self.machine.env(also=self.environment)
        return self.machine.run("git", *words, data=data, check=False, cwd=self.cwd, env=environment)


@pytest.fixture
def situation(acme: Workspace, tmp_path: Path) -> Iterator[Situation]:
    """The usual scene; nothing is in the way."""
    with ExitStack() as stack:
        found = Situation(acme.machine, acme.bitbucket, acme.widgets, tmp_path, stack)
        found.base, found.api = acme.bitbucket.base_url, acme.bitbucket.base_api_url
        found.trust(acme.bitbucket.ca_file)
        found.cwd = acme.machine.home
        yield found


def dead() -> str:
    """Return a place where nothing listens."""
    return f"localhost:{free_port()}"


def proxy_setting(value: str) -> Callable[[Situation], None]:
    return lambda at: at.set("http.proxy", value.format(proxy=at.proxy().address, dead=dead(), base=at.base))


def variable(name: str, value: str, **others: str) -> Callable[[Situation], None]:
    def arrange(at: Situation) -> None:
        places = {"proxy": at.proxy().address, "dead": dead(), "socks": at.socks().address}
        at.environment |= {name: value.format(**places)} | others

    return arrange


def with_password(given: str) -> Callable[[Situation], None]:
    return lambda at: at.set("http.proxy", f"http://{given}@{at.proxy('some one:p@ss').address}")


def socks_with_password(given: str) -> Callable[[Situation], None]:
    return lambda at: at.set("http.proxy", f"socks5h://{given}@{at.socks('a:b').address}")


def for_url(url: str, value: str) -> Callable[[Situation], None]:
    def arrange(at: Situation) -> None:
        at.set("http.proxy", f"http://{dead()}")
        # Git does not know the API, so the API's URL has no path of a repository.
        for pattern in (url.format(base=at.base), url.format(base=at.api).removesuffix("/acme")):
            at.set(f"http.{pattern}.proxy", value.format(proxy=at.proxy().address))

    return arrange


def tls_proxy(*, trusted: bool, certificate: str = "none") -> Callable[[Situation], None]:
    def arrange(at: Situation) -> None:
        clients = trustme.CA()
        proxy, authority = at.tls_proxy(None if certificate == "none" else clients)
        at.set("http.proxy", f"https://{proxy.address}")
        if trusted:
            at.set("http.proxySSLCAInfo", authority)
        if certificate == "shown":
            cert, key = client_certificate(at, clients)
            at.set("http.proxySSLCert", cert)
            at.set("http.proxySSLKey", key)

    return arrange


def client_certificate(at: Situation, clients: trustme.CA) -> tuple[Path, Path]:
    """A certificate, and its key."""
    issued = clients.issue_cert("client.example")
    return (
        at.file("client.pem", issued.cert_chain_pems[0].bytes()),
        at.file("client.key", issued.private_key_pem.bytes()),
    )


def client(how: str) -> Callable[[Situation], None]:
    def arrange(at: Situation) -> None:
        clients = trustme.CA()
        at.another_server(clients=clients)
        cert, key = client_certificate(at, trustme.CA() if how == "of another authority" else clients)
        if how == "by a variable":
            at.environment |= {"GIT_SSL_CERT": str(cert), "GIT_SSL_KEY": str(key)}
        elif how == "in one file":
            at.set("http.sslCert", at.file("both.pem", key.read_bytes() + cert.read_bytes()))
        elif how == "for this URL":
            for base in (at.base, at.api):
                at.set(f"http.{base}.sslCert", cert)
                at.set(f"http.{base}.sslKey", key)
        elif how == "with a password":
            encrypted = at.folder / "encrypted.key"
            at.machine.run("openssl", "pkey", "-in", key, "-out", encrypted, "-aes128", "-passout", "pass:x")
            at.set("http.sslCert", cert)
            at.set("http.sslKey", encrypted)
        elif how != "none":
            at.set("http.sslCert", cert)
            at.set("http.sslKey", at.folder / "missing" if how == "without its key" else key)

    return arrange


def resolving(value: str, *more: str) -> Callable[[Situation], None]:
    def arrange(at: Situation) -> None:
        at.another_server(name="bitbucket.example")
        for base in (at.base, at.api):
            for one in (value, *more):
                at.set("http.curloptResolve", one.format(port=urlsplit(base).port))

    return arrange


def authority(how: str) -> Callable[[Situation], None]:
    def arrange(at: Situation) -> None:
        good = at.bitbucket.ca_file
        bad = at.file("bad.pem", trustme.CA().cert_pem.bytes())
        at.trust(None)
        if how == "configuration":
            at.set("http.sslCAInfo", good)
        elif how == "for this URL":
            at.set("http.sslCAInfo", bad)
            for base in (at.base, at.api):
                at.set(f"http.{base}/.sslCAInfo", good)
        elif how == "for this URL, escaped":
            at.set("http.sslCAInfo", bad)
            at.set(f"http.{at.base}/%61cme/.sslCAInfo", good)
            at.set(f"http.{at.api}/.sslCAInfo", good)
        elif how == "variable before configuration":
            at.set("http.sslCAInfo", bad)
            at.trust(good)
        elif how == "a wrong variable":
            at.set("http.sslCAInfo", good)
            at.trust(bad)
        elif how == "a wrong one":
            at.set("http.sslCAInfo", bad)
        elif how == "below home":
            at.file("home/authority.pem", good.read_bytes())
            at.set("http.sslCAInfo", "~/authority.pem")

    return arrange


def issuing_authority(at: Situation) -> None:
    """Trust the authority that issued the server's certificate, which is not at the top."""
    top = trustme.CA()
    issuing = top.create_child_ca()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    issuing.issue_cert("localhost").configure_cert(context)
    at.another_server()
    for server in at.bitbucket._servers.values():
        server.context = context
    at.trust(at.file("issuing.pem", issuing.cert_pem.bytes()))


def socks_and_resolve(at: Situation) -> None:
    """If the proxy does not look up the name, git's addresses are used."""
    at.another_server(name="bitbucket.example")
    at.set("http.curloptResolve", f"bitbucket.example:{urlsplit(at.base).port}:127.0.0.1")
    at.set("http.curloptResolve", f"bitbucket.example:{urlsplit(at.api).port}:127.0.0.1")
    at.set("http.proxy", f"socks5://{at.socks().address}")


def level(how: str) -> Callable[[Situation], None]:
    """Set a proxy that does not work, and in one of the places of git's settings a proxy that works."""

    def arrange(at: Situation) -> None:
        good = f"http://{at.proxy().address}"
        file = at.folder / "more.config"
        at.set("http.proxy", f"http://{dead()}")
        if how == "command line":
            at.arguments += ["-c", f"http.proxy={good}"]
        elif how == "variables":
            at.environment |= {
                "GIT_CONFIG_COUNT": "1",
                "GIT_CONFIG_KEY_0": "http.proxy",
                "GIT_CONFIG_VALUE_0": good,
            }
        elif how == "another global file":
            file.write_text(f"[http]\n\tproxy = {good}\n")
            at.environment["GIT_CONFIG_GLOBAL"] = str(file)
        elif how == "system":
            at.machine.git("config", "--global", "--unset-all", "http.proxy")
            file.write_text(f"[http]\n\tproxy = {good}\n")
            at.environment |= {"GIT_CONFIG_SYSTEM": str(file), "GIT_CONFIG_NOSYSTEM": None}
        elif how == "include":
            file.write_text(f"[http]\n\tproxy = {good}\n")
            at.set("include.path", file)
        elif how == "conditional include":
            file.write_text(f"[http]\n\tproxy = {good}\n")
            at.set(f"includeIf.gitdir:{at.folder}/here/.path", file)
            in_repository(at)

    return arrange


def in_repository(at: Situation, *settings: str) -> None:
    """Call git within a repository that has these settings."""
    at.cwd = at.folder / "here"
    at.machine.git("init", "-q", at.cwd)
    for setting in settings:
        key, _, value = setting.partition("=")
        at.machine.git("config", key, value, cwd=at.cwd)


#: Situations in which git gets through, and so does the helper; or neither.
SAME: dict[str, Callable[[Situation], object]] = {
    "nothing special": lambda _: None,
    "http.proxy": proxy_setting("http://{proxy}"),
    "http.proxy without a scheme": proxy_setting("{proxy}"),
    "http.proxy, dead": proxy_setting("http://{dead}"),
    "http.proxy with a password": with_password("some%20one:p%40ss"),
    "http.proxy with a wrong password": with_password("some%20one:wrong-password"),
    "http.<url>.proxy": for_url("{base}", "http://{proxy}"),
    "http.<url>.proxy for a path": for_url("{base}/acme", "http://{proxy}"),
    "http.<url>.proxy, empty": for_url("{base}", ""),
    "http.<url>.proxy of another host": for_url("https://github.com", "http://{proxy}"),
    "http.<url>.proxy with a wildcard": for_url("https://*", "http://{proxy}"),
    "https_proxy": variable("https_proxy", "http://{proxy}"),
    "all_proxy": variable("all_proxy", "http://{proxy}"),
    "http_proxy is not for https": variable("http_proxy", "http://{dead}"),
    "https_proxy and no_proxy": variable("https_proxy", "http://{dead}", no_proxy="example.org,localhost"),
    "no_proxy with a dot": variable("https_proxy", "http://{dead}", no_proxy=".localhost"),
    "no_proxy for all": variable("https_proxy", "http://{dead}", no_proxy="*"),
    "no_proxy of a part of the name": variable("https_proxy", "http://{dead}", no_proxy="ocalhost"),
    "no_proxy of an address": variable("https_proxy", "http://{dead}", no_proxy="127.0.0.1"),
    "socks": variable("all_proxy", "socks://{socks}"),
    "socks4": variable("all_proxy", "socks4://{socks}"),
    "socks4a": variable("https_proxy", "socks4a://{socks}"),
    "socks with curloptResolve": socks_and_resolve,
    "a proxy's user without a password": lambda at: at.set("http.proxy", f"http://me@{at.proxy('me:').address}"),
    "a proxy's user with an empty password": lambda at: at.set("http.proxy", f"http://me:@{at.proxy('me:').address}"),
    "socks5": variable("all_proxy", "socks5://{socks}"),
    "socks5h": variable("https_proxy", "socks5h://{socks}"),
    "socks5h with a password": socks_with_password("a:b"),
    "socks5h with a wrong password": socks_with_password("a:wrong-password"),
    "socks5, dead": variable("all_proxy", "socks5://{dead}"),
    "https proxy": tls_proxy(trusted=True),
    "https proxy that is not trusted": tls_proxy(trusted=False),
    "https proxy with a client certificate": tls_proxy(trusted=True, certificate="shown"),
    "https proxy that wants a client certificate": tls_proxy(trusted=True, certificate="wanted"),
    "client certificate": client("configuration"),
    "client certificate by a variable": client("by a variable"),
    "client certificate and key in one file": client("in one file"),
    "client certificate for this URL": client("for this URL"),
    "client certificate wanted": client("none"),
    "client certificate of another authority": client("of another authority"),
    "client certificate without its key": client("without its key"),
    "client key with a password": client("with a password"),
    "curloptResolve": resolving("bitbucket.example:{port}:127.0.0.1"),
    "curloptResolve with a dead address": resolving("bitbucket.example:{port}:127.0.0.9,127.0.0.1"),
    "curloptResolve with dead addresses alone": resolving("bitbucket.example:{port}:127.0.0.9"),
    "curloptResolve with a comma at the end": resolving("bitbucket.example:{port}:127.0.0.1,"),
    "curloptResolve of another host": resolving("example.org:{port}:127.0.0.1"),
    "curloptResolve for all": resolving("*:{port}:127.0.0.1"),
    "curloptResolve after an empty one": resolving("bitbucket.example:{port}:127.0.0.9", "", "*:{port}:127.0.0.1"),
    "sslCAInfo": authority("configuration"),
    "sslCAInfo for this URL": authority("for this URL"),
    "sslCAInfo for this URL, escaped": authority("for this URL, escaped"),
    "sslCAInfo below home": authority("below home"),
    "sslCAInfo with the issuing authority alone": issuing_authority,
    "sslCAInfo, a wrong one": authority("a wrong one"),
    "GIT_SSL_CAINFO": authority("variable before configuration"),
    "GIT_SSL_CAINFO, a wrong one": authority("a wrong variable"),
    "no authority": authority("none"),
    "git -c": level("command line"),
    "GIT_CONFIG_COUNT": level("variables"),
    "GIT_CONFIG_GLOBAL": level("another global file"),
    "the system's configuration": level("system"),
    "an include": level("include"),
    "a conditional include of the user's": level("conditional include"),
    "http.sslVersion": lambda at: at.set("http.sslVersion", "tlsv1.2"),
    "http.sslCipherList": lambda at: at.set("http.sslCipherList", "NORMAL"),
    "http.proxyAuthMethod without a proxy": lambda at: at.set("http.proxyAuthMethod", "digest"),
}


def untrusted(then: Callable[[Situation], object]) -> Callable[[Situation], None]:
    """Trust no authority except the one that ``then`` sets."""

    def arrange(at: Situation) -> None:
        at.trust(None)
        then(at)

    return arrange


def relative_authority(at: Situation) -> None:
    at.file("home/authority.pem", at.bitbucket.ca_file.read_bytes())
    at.set("http.sslCAInfo", "authority.pem")


def negotiating_proxy(at: Situation) -> None:
    at.set("http.proxyAuthMethod", "negotiate")
    at.set("http.proxy", f"http://{at.proxy().address}")


#: Situations in which git and the helper differ on purpose: whether git gets through, and the helper's message.
DIFFERENT: dict[str, tuple[Callable[[Situation], object], bool, str]] = {
    "verification is never off": (
        untrusted(lambda at: at.set("http.sslVerify", "false")),
        True,
        "verifies certificates anyway",
    ),
    "a pin is not supported": (
        lambda at: at.set("http.pinnedPubkey", "sha256//" + "A" * 43 + "="),
        False,
        "http.pinnedPubkey",
    ),
    "a repository's own proxy is not used": (
        lambda at: in_repository(at, f"http.proxy=http://{dead()}"),
        False,
        "http.proxy",
    ),
    "a repository's own authority is not used": (
        untrusted(lambda at: in_repository(at, f"http.sslCAInfo={at.bitbucket.ca_file}")),
        True,
        "http.sslcainfo",
    ),
    "a relative path would be the folder's choice": (
        untrusted(relative_authority),
        True,
        "relative path",
    ),
    "another authentication than basic for a proxy": (
        negotiating_proxy,
        True,
        "http.proxyAuthMethod",
    ),
}


@pytest.mark.parametrize("name", SAME)
def test_helper_gets_through_if_git_does(situation: Situation, name: str) -> None:
    SAME[name](situation)
    git, helper = situation.git_gets_through(), situation.helper_gets_through()

    assert ("password=" in helper.stdout) == git, helper.stderr
    assert "wrong-password" not in helper.stderr
    if not git:
        assert "hint: " in helper.stderr


@pytest.mark.parametrize("name", DIFFERENT)
def test_helper_reports_why_it_differs_from_git(situation: Situation, name: str) -> None:
    arrange, git_gets_through, said = DIFFERENT[name]
    arrange(situation)

    if name != "a pin is not supported":  # Not every git's curl knows it.
        assert situation.git_gets_through() == git_gets_through
    helper = situation.helper_gets_through()
    assert ("password=" in helper.stdout) == (name == "a repository's own proxy is not used")
    assert said.lower() in helper.stderr.lower()


def test_broken_configuration_in_the_current_folder_does_not_unset_the_users_pin(situation: Situation) -> None:
    situation.set("http.pinnedPubkey", "sha256//" + "A" * 43 + "=")
    in_repository(situation)
    assert situation.cwd is not None
    (situation.cwd / ".git/config").write_text("[core\n")
    environment = situation.machine.env(also=situation.environment)
    url = f"{situation.base}/acme/widgets"
    done = situation.machine.run(COMMAND, "token", url, check=False, cwd=situation.cwd, env=environment)

    assert done.returncode == 1
    assert "sets http.pinnedPubkey" in done.stderr
    assert situation.bitbucket.helper_requests() == []


def test_commands_in_a_broken_repository(acme: Workspace) -> None:
    here = acme.machine.home / "here"
    here.mkdir()
    (here / ".git").write_text("gitdir: ../missing")  # As in a copy of a submodule.
    for command in (["token", acme.url], ["configure"], ["unconfigure"]):
        acme.machine.run(COMMAND, *command, cwd=here)
    assert "bbjwt" not in (acme.machine.home / ".gitconfig").read_text()


def test_git_that_cannot_be_run_is_an_error_and_not_a_git_without_settings(acme: Workspace, tmp_path: Path) -> None:
    broken = tmp_path / "broken/git"
    broken.parent.mkdir()
    broken.write_bytes(b"\x7fELF")
    broken.chmod(0o755)
    done = acme.get(check=False, PATH=f"{broken.parent}:{acme.machine.environment['PATH']}")

    assert_quits(done, "cannot run git: Exec format error")
    assert acme.bitbucket.helper_requests() == []


def test_refused_connection_is_not_taken_for_a_missing_client_certificate(acme: Workspace) -> None:
    acme.write_installation(baseApiUrl=f"https://{dead()}")
    done = acme.get("--timeout=6", check=False)

    assert_quits(done, "Connection refused", "check the network")
    assert "client certificate" not in done.stderr


def test_missing_ssl_cert_file_is_named(acme: Workspace) -> None:
    done = acme.get(check=False, GIT_SSL_CAINFO=None, SSL_CERT_FILE=str(acme.machine.home / "missing"))

    assert_quits(done, "cannot be verified", "SSL_CERT_FILE names a file that is not there")


def test_call_that_waits_for_certificates_says_so(acme: Workspace, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "authorities")
    done = acme.get("--timeout=3", check=False, GIT_SSL_CAINFO=str(tmp_path / "authorities"))

    assert_quits(done, "gave up after 3 s: reading git's settings and the certificates")


def test_port_of_thousands_of_digits_in_curlopt_resolve_is_a_warning(acme: Workspace) -> None:
    acme.machine.git("config", "--global", "http.curloptResolve", f"localhost:{'9' * 5000}:127.0.0.1")
    done = acme.get()

    assert "password" in answer(done)
    assert "is not HOST:PORT:ADDRESS" in done.stderr


def test_settings_that_choose_the_route_are_in_the_man_page() -> None:
    text = (PROJECT / "git_credential_bbjwt/installed/git-credential-bbjwt.1").read_text()
    rows = dict(re.findall(r"^\.B http\.(\w+).*\n(.*)$", text, re.MULTILINE))

    assert {name.lower() for name in rows} == CHOOSE_THE_WAY
    for one in NOT_HONOURED:
        assert ("error" if one.is_refused else "warning") in rows[one.name].lower()


# Addresses.


@contextmanager
def silent_address(port: int) -> Iterator[str]:
    """Provide a loopback address that never answers at ``port``."""
    with socket.socket() as listening, ExitStack() as stack:
        listening.bind(("127.0.0.9", port))
        listening.listen(0)
        for _ in range(4):  # If the queue is full, the kernel drops new connections.
            one = stack.enter_context(socket.socket())
            one.setblocking(False)
            one.connect_ex(("127.0.0.9", port))
        yield "127.0.0.9"


def resolve_to(acme: Workspace, base: str, *addresses: str) -> None:
    """Make the name of ``base`` resolve to these addresses."""
    place = urlsplit(base)
    value = f"{place.hostname}:{place.port}:{','.join(addresses)}"
    acme.machine.git("config", "--global", "--add", "http.curloptResolve", value)


def test_dead_first_address_is_passed_without_a_lost_attempt(acme: Workspace) -> None:
    with ExitStack() as stack:
        for base in (acme.bitbucket.base_url, acme.bitbucket.base_api_url):
            silent = stack.enter_context(silent_address(urlsplit(base).port or 0))
            resolve_to(acme, base, silent, "127.0.0.1")
        done = acme.get("--verbose")

    assert "password" in answer(done)
    assert "starting another attempt" not in done.stderr  # That takes 15 s without a byte.
    assert len(acme.bitbucket.helper_requests()) == 2


def test_dead_first_address_of_the_proxy_is_passed_without_a_lost_attempt(acme: Workspace) -> None:
    with Proxy() as proxy:
        port = int(proxy.address.rpartition(":")[2])
        with silent_address(port) as silent:
            acme.machine.git("config", "--global", "http.curloptResolve", f"localhost:{port}:{silent},127.0.0.1")
            done = acme.get("--verbose", https_proxy=f"http://{proxy.address}")
            assert "password" in answer(done)
            assert "starting another attempt" not in done.stderr
        assert len(proxy.asked) == 2  # Only TCP connections race.


def test_an_address_that_went_silent_is_tried_last(acme: Workspace) -> None:
    """The address accepts connections but never sends anything; it is the first address of both hosts."""
    with ExitStack() as stack:
        for base in (acme.bitbucket.base_url, acme.bitbucket.base_api_url):
            stack.enter_context(socket.create_server(("127.0.0.9", urlsplit(base).port or 0)))
            resolve_to(acme, base, "127.0.0.9", "127.0.0.1")
        done = acme.get("--timeout=9", "--verbose")

    assert "password" in answer(done)
    # A third of the budget, at most once for each host, because both are connected in parallel.
    assert 1 <= done.stderr.count("for 3 s; starting another attempt") <= 2


# Lost requests.


@pytest.mark.parametrize("lost", [["api"], ["token"], ["api", "token"]])
def test_a_request_that_is_lost_is_sent_again(acme: Workspace, lost: list[str]) -> None:
    for kind in lost:
        acme.bitbucket.misbehave(kind, Fault(delay=60))
    assert "password" in answer(acme.get("--timeout=12"))

    assert len(acme.bitbucket.helper_requests()) == 2 + len(lost)


def network_of(budget: Budget) -> Network:
    """Return the shared state of a call's connections, without settings of git."""
    settings: Any = SimpleNamespace(for_url=lambda _: Settings({}))
    return Network(budget, settings)


def test_a_connection_that_waited_for_its_request_is_not_given_up(
    bitbucket: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The swap's connection waits if the look-up takes long. A connection that is not open by then is given up."""
    monkeypatch.setenv("GIT_SSL_CAINFO", str(bitbucket.ca_file))
    with closing(Connection(bitbucket.base_url, network_of(Budget(20)), 5)) as connection:
        connection._opening.join()
        connection._heard -= 60
        assert connection.exchange("GET", "/", {}, None, 5)[0].status > 0
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"https://localhost:{silent.getsockname()[1]}"
        with closing(Connection(url, network_of(Budget(20)), 5)) as connection:
            connection._heard -= 60
            with pytest.raises(SilentError):
                connection.exchange("GET", "/", {}, None, 5)


def test_an_aborted_connection_sends_nothing_in_clear(bitbucket: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another thread may send its request, with a JWT, at the same moment."""
    monkeypatch.setenv("GIT_SSL_CAINFO", str(bitbucket.ca_file))
    versions = []
    with closing(Connection(bitbucket.base_url, network_of(Budget(20)), 5)) as connection:
        connection._opening.join()
        with monkeypatch.context() as patched:
            patched.setattr(socket.socket, "shutdown", lambda stream, _: versions.append(stream.version()))
            connection.abort()
    assert versions == ["TLSv1.3"]  # None after the end of TLS, when a socket sends in clear.


@pytest.mark.parametrize(
    ("budget", "loses", "seconds"),
    [
        (60, False, [15, 20, 25]),
        (60, True, [5, 20, 35]),
        (30, False, [10, 10, 10]),
        (12, False, [4, 4, 4]),
        (12, True, [4, 4, 4]),
        (9, True, [3, 3, 3]),
        (600, False, [15, 20, 565]),
    ],
)
def test_attempts_are_given_up_one_after_the_other(budget: float, loses: bool, seconds: list[float]) -> None:
    network = network_of(Budget(budget))
    network.has_lost_attempt = loses
    left = budget
    for lost, expected in enumerate(seconds):
        assert _patience(network, lost, left) == expected
        left -= expected


@pytest.mark.parametrize("lost", [1, 2])
def test_a_slow_server_is_asked_three_times_at_most_and_never_twice_at_once(acme: Workspace, lost: int) -> None:
    acme.bitbucket.misbehave("api", *[Fault(delay=9)] * lost)
    assert "password" in answer(acme.get("--timeout=12"))

    assert len([one for one in acme.bitbucket.seen if one.origin == "api"]) == lost + 1


def test_a_server_that_stays_silent_is_named_at_the_end_of_the_budget(acme: Workspace) -> None:
    acme.bitbucket.misbehave("api", *[Fault(delay=30)] * 9)
    with ends_within(6):
        done = acme.get("--timeout=6", check=False)

    assert_quits(done, f"gave up after 6 s: waiting for {acme.bitbucket.base_api_url[8:]}")
    assert len([one for one in acme.bitbucket.seen if one.origin == "api"]) == 3


@pytest.mark.parametrize("how", ["proxy", "address"])
def test_proxy_or_resolver_that_is_silent_is_given_up(acme: Workspace, how: str) -> None:
    """A proxy that accepts connections but never sends anything, or a resolver that is silent once."""
    if how == "proxy":
        with socket.create_server(("127.0.0.9", 0)) as silent, Proxy() as proxy:
            place = f"both.example:{proxy.address.rpartition(':')[2]}"
            port = place.rpartition(":")[2]
            silent.close()
            with socket.create_server(("127.0.0.9", int(port))):
                acme.machine.git("config", "--global", "http.curloptResolve", f"{place}:127.0.0.9,127.0.0.1")
                assert "password" in answer(acme.get("--timeout=9", https_proxy=f"http://{place}"))
        return
    script = """
import socket, sys, time
resolve = socket.getaddrinfo
def slow_once(*arguments, **also):
    socket.getaddrinfo = resolve
    time.sleep(60)
socket.getaddrinfo = slow_once
from git_credential_bbjwt.entry import main
main(["--timeout", "9", "get"])
"""
    done = acme.machine.run(sys.executable, "-c", script, data=request(acme.url))
    assert "password" in answer(done)


def test_an_address_that_fails_in_tls_is_tried_last(acme: Workspace) -> None:
    with ExitStack() as stack:
        broken = []
        for base in (acme.bitbucket.base_url, acme.bitbucket.base_api_url):
            broken.append(stack.enter_context(HangUp("127.0.0.9", urlsplit(base).port or 0)))
            resolve_to(acme, base, "127.0.0.9", "127.0.0.1")
        acme.bitbucket.rules.keep_alive = False
        acme.bitbucket.clock_offset = -7200  # This leads to two requests to the API, each with its own connection.
        done = acme.get()
        assert "password" in answer(done)

    # After the first failure, the other host's connection avoids the address, too, if it has not begun yet.
    assert 1 <= sum(one.accepted for one in broken) <= 2


class HangUp:
    """A listener that closes each connection at once. Use as a context manager."""

    def __init__(self, address: str, port: int) -> None:
        self._listening = socket.create_server((address, port))
        self.accepted = 0

    def __enter__(self) -> HangUp:
        threading.Thread(target=self._serve, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                self._listening.accept()[0].close()
                self.accepted += 1


def test_a_server_that_answers_in_time_is_asked_once(acme: Workspace) -> None:
    acme.bitbucket.misbehave("api", Fault(delay=3))
    acme.bitbucket.misbehave("token", Fault(drip=0.002))
    assert "password" in answer(acme.get())

    assert len(acme.bitbucket.helper_requests()) == 2


def test_a_dead_proxy_fails_at_once_and_is_named(acme: Workspace) -> None:
    place = dead()
    done = acme.get("--timeout=3600", check=False, https_proxy=f"http://{place}")

    assert_quits(done, f"the proxy {place} cannot be reached")


def test_a_proxy_that_refuses_is_named(acme: Workspace) -> None:
    with Proxy("a:b") as proxy:
        done = acme.get(check=False, https_proxy=f"http://a:c@{proxy.address}")

    assert_quits(done, f"the proxy {proxy.address} refused to connect to", "407")


def test_an_encrypted_client_key_is_an_error_and_no_prompt(situation: Situation) -> None:
    SAME["client key with a password"](situation)
    done = situation.helper_gets_through()

    assert "encrypted" in done.stderr
    assert "http.sslCert" in done.stderr
    assert "Enter PEM" not in done.stderr


def test_a_server_that_wants_a_certificate_is_named(situation: Situation) -> None:
    SAME["client certificate wanted"](situation)

    assert "client certificate" in situation.helper_gets_through().stderr


def test_the_proxy_never_sees_the_certificate_for_the_server(situation: Situation) -> None:
    """The proxy asks for a certificate and records it."""
    clients = trustme.CA()
    situation.another_server(clients=clients)
    cert, key = client_certificate(situation, clients)
    situation.set("http.sslCert", cert)
    situation.set("http.sslKey", key)
    proxy, authority_file = situation.tls_proxy(clients)
    assert proxy.context is not None
    proxy.context.verify_mode = ssl.CERT_OPTIONAL
    situation.set("http.proxy", f"https://{proxy.address}")
    situation.set("http.proxySSLCAInfo", authority_file)

    assert "password=" in situation.helper_gets_through().stdout
    assert proxy.asked
    assert proxy.shown == [None] * len(proxy.asked)


def test_address_that_is_refused_at_once_is_not_treated_as_connected() -> None:
    """Addresses without a route, like IPv6 in most containers, and of a family that the system does not know."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        there = Address(socket.AF_INET, listening.getsockname())
        nowhere = [Address(socket.AF_INET, ("255.255.255.255", 1)), Address(9999, ("127.0.0.1", 1))]
        with first_to_connect([*nowhere, there], lambda: 5.0, set()) as connected:
            assert connected.getpeername() == listening.getsockname()
        with pytest.raises(OSError, match=r"\w"):
            first_to_connect(nowhere, lambda: 5.0, set())


def test_mint_imports_slow_modules_after_it_has_begun_to_connect() -> None:
    """Git starts many helpers at once, and these modules take most of their time."""
    script = """
import sys
from git_credential_bbjwt.getting import get
from git_credential_bbjwt.network import connections
from git_credential_bbjwt.secret_stores import secret_store
from git_credential_bbjwt.vendors import connect
print(*sys.modules)
"""
    done = subprocess.run([sys.executable, "-I", "-c", script], capture_output=True, text=True, check=True)

    assert "git_credential_bbjwt.network.connection" in done.stdout.split()
    assert not {"ssl", "http.client", "jwt", "hashlib", "subprocess", "shutil"} & set(done.stdout.split())


def test_resolver_without_an_address_is_an_error() -> None:
    """The race of no addresses fails with a reason."""
    script = "from git_credential_bbjwt.network.addresses import first_to_connect as f; f([], lambda: 1.0, set())"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)

    assert "it has no address" in done.stderr
