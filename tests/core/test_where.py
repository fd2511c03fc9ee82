"""WHERE of ``--broker``: a socket, an https URL, or a command line. A URL is never run as a command line."""

from __future__ import annotations

import pytest

from git_credential_bbjwt.core.failures import UsageError
from git_credential_bbjwt.core.where import COMMAND, HTTPS, SOCKET, Where
from tests.conftest import Machine, request


@pytest.mark.parametrize(
    ("value", "way", "text"),
    [
        ("unix:/run/bbjwt/socket", SOCKET, "unix:/run/bbjwt/socket"),
        (" UNIX:/run/with blank ", SOCKET, "unix:/run/with blank"),
        ("ssh -T broker", COMMAND, "ssh -T broker"),
        ("  ssh -T broker", COMMAND, "  ssh -T broker"),
        ("curl https://broker.example", COMMAND, "curl https://broker.example"),
        ("URL=https://broker.example ask", COMMAND, "URL=https://broker.example ask"),
        ("unixes:/x", COMMAND, "unixes:/x"),
        ("https://broker.example", HTTPS, "https://broker.example"),
        (" HTTPS://Broker.Example:443/// ", HTTPS, "https://broker.example"),
        ("https://broker.example:8443/", HTTPS, "https://broker.example:8443"),
        ("https://broker.example:0443/A/b~_.-/", HTTPS, "https://broker.example/A/b~_.-"),
        ("https://xn--bcher-kva.example/x", HTTPS, "https://xn--bcher-kva.example/x"),
        ("https://[2001:DB8::1]:8443", HTTPS, "https://[2001:db8::1]:8443"),
        ("https://[::1]", HTTPS, "https://[::1]"),
        ("https://127.0.0.1:1", HTTPS, "https://127.0.0.1:1"),
    ],
)
def test_where_is_normalized(value: str, way: str, text: str) -> None:
    found = Where.parse(value)

    assert (found.way, found.text) == (way, text)
    assert Where.parse(found.text).text == text


def test_an_https_where_has_its_parts() -> None:
    found = Where.parse("https://[2001:DB8::1]:8443/a/b/")

    assert (found.host, found.port, found.path) == ("[2001:db8::1]", 8443, "/a/b")
    assert Where.parse("https://broker.example").port == 443


WRONG = [
    "",
    " ",
    "unix:",
    "unix:relative",
    "unix:./x",
    "unix://run/x",
    "unix:/" + "x" * 107,
    "http://broker.example",
    " HTTP://broker.example",
    "http:broker",
    "https:",
    "https:broker.example",
    "https:/broker.example",
    "https://",
    "https:///x",
    "https://user@broker.example",
    "https://user:pass-word@broker.example",
    "https://broker.example?x",
    "https://broker.example/?x",
    "https://broker.example/#x",
    "https://broker.example/%41",
    "https://broker.example/a/../b",
    "https://broker.example/.",
    "https://broker.example\\x",
    "https://broker.example/a b",
    "https://broker.example/a\tb",
    "https://b\u00fccher.example",
    "https://broker\u2024example",
    "https://broker.example:0",
    "https://broker.example:65536",
    "https://broker.example:x",
    "https://broker.example:",
    "https://broker.example:\u0661",
    "https://broker..example",
    "https://.example",
    "https://broker.example.",
    "https://-broker.example",
    "https://" + "x" * 64 + ".example",
    "https://[::1",
    "https://[::g]",
    "https://[fe80::1%25eth0]",
    "https://::1",
    "https://a_b.example",
    "ftp://broker.example",
    "tcp://127.0.0.1:1",
    "ssh://git@broker.example",
]


@pytest.mark.parametrize("value", WRONG)
def test_another_url_is_an_error_and_never_a_command(value: str) -> None:
    with pytest.raises(UsageError) as raised:
        Where.parse(value, "BBJWT_BROKER")

    assert raised.value.what.startswith("BBJWT_BROKER ")
    assert "pass-word" not in raised.value.what + raised.value.hint


@pytest.mark.parametrize("value", ["http://127.0.0.1:1", "unix:socket", "https://u:pass-word@h.example"])
def test_a_wrong_broker_is_a_usage_error_of_option_and_variable(machine: Machine, value: str) -> None:
    for done in (
        machine.bbjwt("--broker", value, "get", data=request("https://bitbucket.org/a/b") + "\n", check=False),
        machine.bbjwt("--broker", value, "list", check=False),
        machine.bbjwt("token", "https://bitbucket.org/a/b", check=False, BBJWT_BROKER=value),
    ):
        assert (done.returncode, done.stdout) == (2, "")
        assert "broker" in done.stderr.lower()
        assert "pass-word" not in done.stderr
