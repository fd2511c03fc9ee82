"""The route to Bitbucket: git's proxies and certificate authorities, several addresses, and constant verification."""

from __future__ import annotations

import socket
import ssl
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest
import trustme

from git_credential_bbjwt.git.http_settings import Settings
from git_credential_bbjwt.network.route import _resolve, find_proxy
from tests.conftest import Machine, Workspace, answer, assert_quits, ends_within, free_port, request
from tests.emulator import Emulator
from tests.mint import Mint
from tests.network.raw_server import RawServer
from tests.proxy import Proxy, SocksProxy


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    """A proxy without a password."""
    with Proxy() as running:
        yield running


def configure(machine: Machine, key: str, value: str) -> None:
    """Set something in the user's git configuration."""
    machine.git("config", "--global", key, value)


def both_origins(bitbucket: Emulator) -> set[str]:
    """Return host and port of the base URL and of the API."""
    return {urlsplit(url).netloc for url in (bitbucket.base_url, bitbucket.base_api_url)}


@pytest.mark.parametrize("variable", ["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"])
def test_proxy_variables(mint: Mint, proxy: Proxy, monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv(variable, f"http://{proxy.address}")

    assert mint.token().token
    assert set(proxy.asked) == both_origins(mint.bitbucket)


def test_http_proxy_is_for_plain_http(mint: Mint, proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", f"http://{proxy.address}")

    assert mint.token().token
    assert proxy.asked == []


@pytest.mark.parametrize("value", ["http://{}", "{}"])
def test_gits_http_proxy(mint: Mint, machine: Machine, proxy: Proxy, value: str) -> None:
    configure(machine, "http.proxy", value.format(proxy.address))

    assert mint.token().token
    assert set(proxy.asked) == both_origins(mint.bitbucket)


@pytest.mark.parametrize(
    ("proxy", "port"),
    [("http://{}", 1080), ("socks5h://{}", 1080), ("{}", 1080), ("https://{}", 443), ("http://{}:81", 81)],
)
def test_proxy_without_a_port_uses_curls_default(proxy: str, port: int) -> None:
    found = find_proxy("https://bitbucket.org", Settings({"proxy": [proxy.format("proxy.example")]}))

    assert found is not None
    assert (found.host, found.port) == ("proxy.example", port)


@pytest.mark.parametrize(
    ("values", "found"),
    [
        (["bitbucket.org:443:10.0.0.1,[::1]"], {("bitbucket.org", 443): ["10.0.0.1", "::1"]}),
        (["+Bitbucket.org:443:10.0.0.1"], {("bitbucket.org", 443): ["10.0.0.1"]}),
        (["bitbucket.org:443:10.0.0.1", "-bitbucket.org:443"], {}),
        (["bitbucket.org:https:10.0.0.1"], {}),
        (["bitbucket.org:４４３:10.0.0.1"], {}),
        ([":443:10.0.0.1"], {}),
        (["bitbucket.org:443:"], {}),
        (["bitbucket.org:443:10.0.0.1", "bitbucket.org:443"], {("bitbucket.org", 443): ["10.0.0.1"]}),
        (["bitbucket.org:443:10.0.0.1", "-bitbucket.org"], {("bitbucket.org", 443): ["10.0.0.1"]}),
        (["bitbucket.org:443:10.0.0.1", "-bitbucket.org:444"], {("bitbucket.org", 443): ["10.0.0.1"]}),
        (["bitbucket.org"], {}),
    ],
)
def test_addresses_of_gits_curlopt_resolve(values: list[str], found: dict[tuple[str, int], list[str]]) -> None:
    assert _resolve(values) == found


def test_gits_proxy_for_one_url_is_used_only_for_that_url(mint: Mint, machine: Machine, proxy: Proxy) -> None:
    configure(machine, f"http.{mint.bitbucket.base_api_url}.proxy", f"http://{proxy.address}")

    assert mint.token().token
    assert proxy.asked == [urlsplit(mint.bitbucket.base_api_url).netloc]


def test_gits_settings_of_one_command_are_used(acme: Workspace, proxy: Proxy) -> None:
    acme.machine.git("-c", f"http.proxy=http://{proxy.address}", "ls-remote", acme.url)

    assert both_origins(acme.bitbucket) <= set(proxy.asked)


def test_empty_http_proxy_means_no_proxy(
    mint: Mint, machine: Machine, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    configure(machine, "http.proxy", "")
    monkeypatch.setenv("https_proxy", f"http://{proxy.address}")

    assert mint.token().token
    assert proxy.asked == []


@pytest.mark.parametrize("listed", ["localhost", "*", "example.org,localhost", ".localhost", "example.org localhost"])
@pytest.mark.parametrize("variable", ["no_proxy", "NO_PROXY"])
def test_no_proxy(mint: Mint, proxy: Proxy, monkeypatch: pytest.MonkeyPatch, variable: str, listed: str) -> None:
    monkeypatch.setenv(variable, listed)
    monkeypatch.setenv("https_proxy", f"http://{proxy.address}")

    assert mint.token().token
    assert proxy.asked == []


@pytest.mark.parametrize("listed", ["", "ocalhost", "localhost.example", "example.org", "10.0.0.0/8"])
def test_no_proxy_of_others(mint: Mint, proxy: Proxy, monkeypatch: pytest.MonkeyPatch, listed: str) -> None:
    monkeypatch.setenv("no_proxy", listed)
    monkeypatch.setenv("https_proxy", f"http://{proxy.address}")

    assert mint.token().token
    assert set(proxy.asked) == both_origins(mint.bitbucket)


@pytest.mark.parametrize(
    ("listed", "host", "direct"),
    [
        ("10.0.0.0/8", "10.1.2.3", True),
        ("10.0.0.0/8", "11.1.2.3", False),
        ("10.1.2.3/8", "10.9.9.9", True),  # curl ignores the bits of the host.
        ("10.1.2.3", "10.1.2.3", True),
        ("10.1.2.3", "10.1.2.4", False),
        ("fd00::/8", "[fd12::1]", True),
        ("fd00::/8", "[fe80::1]", False),
        ("[fd12::1]", "[fd12::1]", True),
        ("10.0.0.0/8", "bitbucket.org", False),
        ("Bitbucket.ORG", "bitbucket.org", True),
        ("bitbucket.org", "api.bitbucket.org", True),
        ("10.0.0.0/99,bitbucket.org", "bitbucket.org", True),
    ],
)
def test_no_proxy_of_networks_and_names(monkeypatch: pytest.MonkeyPatch, listed: str, host: str, direct: bool) -> None:
    for name in ("NO_PROXY", "https_proxy", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("no_proxy", listed)
    found = find_proxy(f"https://{host}", Settings({"proxy": ["http://proxy.example:3128"]}))

    assert (found is None) == direct


def test_a_proxy_with_a_password(acme: Workspace) -> None:
    with Proxy("some one:p@ss/w:rd") as proxy:
        url = f"http://some%20one:p%40ss%2Fw%3Ard@{proxy.address}"
        done = acme.get("--verbose", https_proxy=url)

        assert "password" in answer(done)
        assert "p@ss" not in done.stderr
        assert "p%40ss" not in done.stderr


def test_a_proxy_that_refuses_is_asked_once_a_connection(acme: Workspace) -> None:
    with Proxy("a:b") as proxy:
        done = acme.get(check=False, https_proxy=f"http://a:wrong-password@{proxy.address}")

        assert_quits(done, "proxy", "407")
        assert "wrong-password" not in done.stderr
        assert len(proxy.asked) <= 2


@pytest.mark.parametrize("value", ["gopher://localhost:1", "ftp://localhost:1", "http://", "http://[::1"])
def test_proxy_that_cannot_be_used_is_an_error(mint: Mint, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("https_proxy", value)

    assert "proxy" in mint.error().what


@pytest.mark.parametrize(
    ("scheme", "asked", "version"),
    [
        ("socks5h", "localhost", 5),
        ("socks5", "127.0.0.1", 5),
        ("socks4a", "localhost", 4),
        ("socks4", "127.0.0.1", 4),
        ("socks", "127.0.0.1", 4),
        ("SOCKS", "127.0.0.1", 4),
    ],
)
@pytest.mark.parametrize("userinfo", ["", "someone:p@ss/word"])
def test_a_socks_proxy(
    mint: Mint, monkeypatch: pytest.MonkeyPatch, scheme: str, asked: str, version: int, userinfo: str
) -> None:
    proxy = SocksProxy(userinfo)
    with proxy:
        before = f"{quote(userinfo, safe=':')}@" if userinfo else ""
        monkeypatch.setenv("all_proxy", f"{scheme}://{before}{proxy.address}")
        monkeypatch.setenv("BBJWT_TRACE", "1")
        assert mint.token().token

    assert {target.rpartition(":")[0] for target in proxy.asked} == {asked}
    assert proxy.versions == {version}
    assert "p@ss" not in mint.text


@pytest.mark.parametrize("scheme", ["socks5h", "socks4"])
def test_a_socks_proxy_at_a_unix_socket(acme: Workspace, scheme: str) -> None:
    place = str(acme.machine.home / "a socket")
    with SocksProxy(path=place) as proxy:
        assert "password" in answer(acme.get(all_proxy=f"{scheme}://{proxy.address}"))
        assert len(proxy.asked) == 2

    Path(place).unlink()
    done = acme.get("--token-store=none", check=False, all_proxy=f"{scheme}://{proxy.address}")
    assert_quits(done, f"the proxy {place} cannot be reached")


@pytest.mark.parametrize("scheme", ["http", "https", "socks5h", "socks"])
def test_proxys_user_name_without_a_password_is_an_error(
    mint: Mint, monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    monkeypatch.setenv("https_proxy", f"{scheme}://somebody@proxy.example:3128")
    error = mint.error()

    assert "the URL of the proxy proxy.example has a user name but no password" in error.what
    assert "USER:PASSWORD" in error.hint
    assert "somebody" not in mint.text


def test_a_socks_proxy_that_refuses_is_asked_once_a_connection(acme: Workspace) -> None:
    proxy = SocksProxy("a:b")
    with proxy:
        done = acme.get(check=False, all_proxy=f"socks5h://a:wrong-password@{proxy.address}")

    assert_quits(done, "proxy")
    assert "wrong-password" not in done.stderr
    assert proxy.refused <= 2


def test_a_proxy_over_tls(acme: Workspace, tmp_path: Path) -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    both = tmp_path / "both.pem"
    both.write_bytes(acme.bitbucket.ca_file.read_bytes() + authority.cert_pem.bytes())
    with Proxy(context=context) as proxy:
        changes = {"https_proxy": f"https://{proxy.address}", "GIT_SSL_CAINFO": str(both), "SSL_CERT_FILE": str(both)}

        assert "password" in answer(acme.get(also=changes))
        assert set(proxy.asked) == both_origins(acme.bitbucket)


# Certificate authorities.


def without_authorities(acme: Workspace) -> None:
    """Forget the emulator's authority."""
    for name in ("SSL_CERT_FILE", "GIT_SSL_CAINFO"):
        acme.machine.environment.pop(name)


def test_an_unknown_authority_is_refused(acme: Workspace) -> None:
    without_authorities(acme)

    assert_quits(acme.get(check=False), "certificate", "sslCAInfo")
    assert acme.bitbucket.seen == []


@pytest.mark.parametrize("variable", ["GIT_SSL_CAINFO", "SSL_CERT_FILE"])
def test_an_authority_named_by_a_variable(acme: Workspace, variable: str) -> None:
    without_authorities(acme)

    assert "password" in answer(acme.get(also={variable: str(acme.bitbucket.ca_file)}))


@pytest.mark.parametrize("key", ["http.sslCAInfo", "http.{base}.sslCAInfo"])
def test_an_authority_in_gits_configuration(
    mint: Mint, machine: Machine, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    monkeypatch.delenv("GIT_SSL_CAINFO")
    for base in (mint.bitbucket.base_url, mint.bitbucket.base_api_url):
        configure(machine, key.format(base=base), str(mint.bitbucket.ca_file))

    assert mint.token().token


def test_missing_authority_file_is_an_error(acme: Workspace) -> None:
    assert_quits(acme.get(check=False, GIT_SSL_CAINFO="/nowhere/ca.pem"), "/nowhere/ca.pem", "sslCAInfo")


@pytest.mark.parametrize("how", ["http.sslVerify", "GIT_SSL_NO_VERIFY"])
def test_verification_cannot_be_switched_off(acme: Workspace, how: str) -> None:
    warned = "git-credential-bbjwt: warning: http.sslVerify is off"
    changes: dict[str, str] = {}
    if how == "http.sslVerify":
        configure(acme.machine, how, "false")
    else:
        changes = {how: "1"}
    assert acme.get(also=changes).stderr.count(warned) == 1
    without_authorities(acme)
    done = acme.get("--token-store=none", check=False, also=changes)

    assert_quits(done, "certificate")
    assert done.stderr.count(warned) == 1


def test_a_certificate_of_another_host_is_refused(acme: Workspace, tmp_path: Path) -> None:
    with Emulator(tmp_path / "other", name="bitbucket.example") as other:
        acme.write_installation(baseUrl=other.base_url, baseApiUrl=other.base_api_url)
        done = acme.machine.get(f"{other.base_url}/acme/widgets", check=False, GIT_SSL_CAINFO=str(other.ca_file))

    assert_quits(done, "certificate", "another server or a proxy")
    assert other.seen == []


def test_hint_for_an_expired_certificate_names_the_clock(acme: Workspace, tmp_path: Path) -> None:
    authority, context = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost", not_after=datetime(2020, 1, 1)).configure_cert(context)
    authority.cert_pem.write_to_path(str(tmp_path / "authority.pem"))
    with RawServer(context, lambda _: []) as server:
        acme.write_installation(baseUrl=server.url, baseApiUrl=server.url)
        done = acme.machine.get(
            f"{server.url}/acme/widgets", check=False, GIT_SSL_CAINFO=str(tmp_path / "authority.pem")
        )

    assert_quits(done, "expired", "this machine's date")


# Addresses.


@pytest.mark.parametrize("dead", ["127.0.0.2", "::1"])
def test_next_address_is_tried_if_the_first_does_not_answer(acme: Workspace, dead: str) -> None:
    # The fault: a resolver that names an address first at which nothing listens.
    script = f"""
import socket, sys
resolve = socket.getaddrinfo
def resolve_with_a_dead_address_first(host, port, *rest, **also):
    family = socket.AF_INET6 if ":" in "{dead}" else socket.AF_INET
    return [(family, socket.SOCK_STREAM, 6, "", ("{dead}", port)), *resolve(host, port, *rest, **also)]
socket.getaddrinfo = resolve_with_a_dead_address_first
from git_credential_bbjwt.entry import main
main(["get"])
"""
    done = acme.machine.run(sys.executable, "-c", script, data=request(acme.url))

    assert "password" in answer(done)
    assert len(acme.bitbucket.helper_requests()) == 2


def test_nothing_listens(mint: Mint) -> None:
    url = f"https://localhost:{free_port()}"
    error = mint.error(base=url, api=url, seconds=3600)

    assert "no response from" in error.what
    assert "proxy" in error.hint


def test_name_that_does_not_exist(mint: Mint) -> None:
    url = "https://bitbucket.invalid"

    assert "bitbucket.invalid" in mint.error(base=url, api=url).what


def test_server_that_accepts_and_sends_nothing(acme: Workspace) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"https://localhost:{silent.getsockname()[1]}"
        acme.write_installation(baseUrl=url, baseApiUrl=url)
        with ends_within(2):
            done = acme.machine.get(f"{url}/acme/widgets", "--timeout=2", check=False)

    assert_quits(done, "gave up after 2 s: waiting for")
