"""Properties that hold for any bytes: `test_hostile` tests them with generated inputs, and a fuzzer with inputs that
lead to new code.

Each property takes bytes and raises AssertionError if it does not hold. An exception other than CredentialError would
be a traceback for the user, and fails by itself.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote_to_bytes

from git_credential_bbjwt.bitbucket.refusal import server_words
from git_credential_bbjwt.bitbucket.responses import checked_token, checked_uuid
from git_credential_bbjwt.commands.registration.payload_input import app_of, split_payloads
from git_credential_bbjwt.core.failures import CredentialError
from git_credential_bbjwt.core.output import _secrets, one_line
from git_credential_bbjwt.core.protocol import format_answer, parse_request
from git_credential_bbjwt.core.record import Record, parse_record
from git_credential_bbjwt.core.repository import Repository, normal_host, parse_path
from git_credential_bbjwt.core.server_text import safe_text
from git_credential_bbjwt.core.source import host_folder, host_of, unpacked
from git_credential_bbjwt.core.where import Where
from git_credential_bbjwt.git.clone_urls import parse_url
from git_credential_bbjwt.git.http_settings import Settings
from git_credential_bbjwt.installations.installation import Installation
from git_credential_bbjwt.installations.payload import parse_payload
from git_credential_bbjwt.installations.registry_entry import parse_entries
from git_credential_bbjwt.network.http1 import read_body, send_request
from git_credential_bbjwt.network.response import BrokenResponseError, Response, TooLongError, http_time
from git_credential_bbjwt.network.route import find_proxy
from git_credential_bbjwt.serving.answer import Answer
from git_credential_bbjwt.serving.audit import LONGEST_VALUE, audit_line
from git_credential_bbjwt.serving.client import key_of
from git_credential_bbjwt.tokens.token import Token, record_of
from git_credential_bbjwt.vendors.broker_answer import parse_answer

_HOST = "bitbucket.org"
_NAME = re.compile(r"[a-z0-9._-]{1,128}|\{[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\}")


def _is_one_line(problem: CredentialError, without: str = "\n") -> None:
    """Assert that the error is a line that moves no cursor and does not contain ``without``."""
    assert one_line(problem.what).isprintable()
    assert without not in problem.what + problem.hint


def _is_right(repository: Repository, path: bytes) -> None:
    """Assert that ``repository`` is the result of an independent reading of ``path``."""
    assert _NAME.fullmatch(repository.workspace), path
    assert _NAME.fullmatch(repository.name), path
    decoded = unquote_to_bytes(path).decode("ascii").lower()
    assert ".." not in decoded.split("/"), path
    workspace, name, *rest = decoded.removeprefix("/").removesuffix("/").split("/")
    assert (repository.workspace, repository.name) == (workspace, name.removesuffix(".git")), path
    assert not rest or rest[0] in ("info", "wiki"), path
    assert len(path.split(b"/")) == len(decoded.split("/")), path  # No encoded slash.


def request(data: bytes) -> None:
    """A credential request is malformed, or each of its attributes is a line of ``data``, as in git's format."""
    try:
        found = parse_request(data)
    except CredentialError as problem:
        _is_one_line(problem)
        return
    lines = data.partition(b"\n\n")[0].split(b"\n")
    for key, value in ((b"path", found.path), (b"protocol", found.protocol)):
        assert value is None or key + b"=" + value in lines, data
    hosts = [line.removeprefix(b"host=") for line in lines if line.startswith(b"host=")]
    assert found.host in [normal_host(one.decode("utf-8", "surrogateescape")) for one in hosts], data
    if found.host == _HOST:
        assert {one.lower() for one in hosts} & {b"bitbucket.org", b"bitbucket.org:443"}, data
    if found.path is not None:
        path_of_a_request(found.path)


def path_of_a_request(data: bytes) -> None:
    """A path names no repository, or exactly the repository that is written in it."""
    try:
        repository = parse_path(_HOST, data)
    except CredentialError as problem:
        _is_one_line(problem)
        return
    _is_right(repository, data)


def url_of_a_person(data: bytes) -> None:
    """A URL names no repository, or a repository on the host between the last ``@`` and the path."""
    text = data.decode("utf-8", "surrogateescape")
    try:
        repository = parse_url(text)
    except CredentialError as problem:
        _is_one_line(problem)
        return
    assert repository.host in normal_host(text), data
    assert not set(repository.host) & set("/@"), data
    assert _NAME.fullmatch(repository.name), data


def swap_answer(data: bytes) -> None:
    """No token is accepted that would break git's protocol or is broader than requested."""
    try:
        token = checked_token(Response(200, data, {}), "repository", 1_700_000_000)
    except CredentialError as problem:
        _is_one_line(problem)
        return
    found = json.loads(data)
    assert found["access_token"] == token.token
    assert found["token_type"].lower() == "bearer"
    for field in ("scope", "scopes"):
        assert set((found.get(field) or "").split()) <= {"repository"}, data
    assert 0 < token.expires - token.minted <= 86_400
    written = format_answer([("password", token.token)])
    assert written.count(b"\n") == 1
    assert b"\r" not in written
    assert b"\0" not in written


def lookup_answer(data: bytes) -> None:
    """No UUID is accepted from an answer about another repository than the requested one."""
    try:
        uuid = checked_uuid(Response(200, data, {}), Repository(_HOST, "acme", "widgets"))
    except CredentialError as problem:
        _is_one_line(problem)
        return
    assert re.fullmatch(r"\{[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\}", uuid)
    full_name = json.loads(data).get("full_name")
    assert full_name is None or full_name.lower() == "acme/widgets", data


def error_answer(data: bytes) -> None:
    """Any text of a server becomes one line that moves no cursor."""
    code, reason = server_words(data)
    assert one_line(f"{code}{reason}").isprintable()
    assert len(reason) < 2_000


class Received:
    """A connection that receives ``data``."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def sendall(self, _: bytes) -> None:
        """Do nothing, because nobody listens."""

    def makefile(self, _: str) -> io.BytesIO:
        """Return the data as a file, as ``http.client`` reads it."""
        return io.BytesIO(self._data)


def http_response(data: bytes) -> None:
    """Any bytes of a server are a response with a limited body, or one of three errors without its words."""
    stream: Any = Received(data)
    try:
        response = send_request(stream, "GET", "/", "bitbucket.org", {})
        body = read_body(response, 200)
    except TooLongError:
        return
    except (BrokenResponseError, ConnectionResetError) as problem:
        shown = str(problem)
    else:
        assert response.status >= 200 or response.status < 100, data
        assert len(body) <= 200
        return
    assert not any(word in shown for word in data.decode("latin-1").split() if len(word) > 30), data


def foreign_text(data: bytes) -> None:
    """Text that has passed the gate is one printable line without anything that looks like a JWT."""
    shown = safe_text(data, 1_000)
    assert shown.isprintable() or not shown
    assert len(shown) <= 1_000
    assert all(len(word) <= 64 or "/" in word for word in shown.split())
    assert safe_text(shown, 1_000) == shown, data


def headers(data: bytes) -> None:
    """A date is a time or nothing."""
    when = http_time(data.decode("latin-1"))
    assert when is None or isinstance(when, float)


def _entries(data: bytes, where: str) -> list[Installation]:
    return parse_entries(data, "acme", where)


def payload(data: bytes) -> None:
    """A payload is an installation on an https host, or an error that does not repeat it."""
    for parse in (parse_payload, _entries):
        try:
            found = parse(data, "FILE")
        except CredentialError as problem:
            _is_one_line(problem, without="s3cret")
            continue
        for one in found:
            assert re.fullmatch(r"https://[^/@?#\s]+", one.base_url), data
            assert re.fullmatch(r"https://[^/@?#\s]+", one.base_api_url), data


def payloads_of_a_person(data: bytes) -> None:
    """Input of `register` is one payload or several, and each can be named in an error."""
    payloads = split_payloads(unpacked(data) or data)
    assert payloads
    for one in payloads:
        assert one_line(app_of(one)).isprintable()


def folder_of_a_host(data: bytes) -> None:
    """A host has no folder, or its own folder directly in the registry."""
    host = normal_host(data.decode("utf-8", "surrogateescape"))
    folder = host_folder(host)
    assert folder == "" or host_of(folder) == host
    assert not set(folder) & set("/\\\0:")
    assert folder.strip(".") != "" or folder == ""


def whole_record(workspace: str = "acme", *, minted: int = 1, expires: int = 2) -> Record:
    """Return a record as a mint makes it."""
    token = Token("t" * 80, identity="0" * 32, minted=minted, expires=expires)
    repository = Repository("localhost", workspace, "widgets")
    return record_of(token, repository, "repository", "", stamp="-")


def record(data: bytes) -> None:
    """A cached record is refused, or it is complete and git can read its token."""
    found = parse_record(data)
    if found is not None:
        assert format_answer([("password", found.token)]).count(b"\n") == 1


def proxy(data: bytes) -> None:
    """A proxy's URL can be used, or is an error that does not repeat it."""
    # A real process hides a few secrets. Here they would pile up and slow down the other tests.
    _secrets.clear()
    try:
        found = find_proxy(f"https://{_HOST}", Settings({"proxy": [data.decode("utf-8", "surrogateescape")]}))
    except CredentialError as problem:
        _is_one_line(problem)
        return
    assert found is None or found.scheme in ("http", "https") or found.is_socks


def broker_answer(data: bytes) -> None:
    """A broker's answer is a token for git, nothing, or an error of one line that shows no JWT."""
    _secrets.clear()
    widgets = Repository(_HOST, "acme", "widgets")
    answer, _, errors = data.partition(b"\0\0")
    try:
        found = parse_answer(answer, errors, widgets, "broker-x")
    except CredentialError as problem:
        _is_one_line(problem, without="eyJhbGciOiJ")
        return
    if found is not None:
        lines = format_answer([("username", found.username), ("password", found.value)])
        assert lines.count(b"\n") == 2
        assert b" " not in lines


def where(data: bytes) -> None:
    """A broker's place has a normal form, and a text that looks like a URL is never a command."""
    try:
        found = Where.parse(data.decode("utf-8", "surrogateescape"))
    except CredentialError as problem:
        _is_one_line(problem, without="s3cret")
        return
    assert Where.parse(found.text).text == found.text, data
    if found.way == "command":
        assert not re.match(r"\s*(unix:|https?:|[a-z][a-z0-9+.-]*://)", found.text, re.IGNORECASE), data
    if found.way == "https":
        assert re.fullmatch(r"https://[a-z0-9.:\[\]-]+(/[\w.~/-]*)?", found.text, re.ASCII), data


def user_of_ssh(data: bytes) -> None:
    """The key from sshd becomes values for the audit, whatever its certificate contains."""
    found = key_of(data)
    assert set(found) <= {"key", "key_id", "serial", "authority"}
    line = audit_line(Answer(200, b""), {"by": "ssh", **found}, "repository", LONGEST_VALUE)
    assert line.isascii()
    assert b"\n" not in line


PROPERTIES: dict[str, Callable[[bytes], None]] = {
    one.__name__: one
    for one in (
        request,
        path_of_a_request,
        url_of_a_person,
        swap_answer,
        lookup_answer,
        error_answer,
        http_response,
        foreign_text,
        headers,
        payload,
        payloads_of_a_person,
        folder_of_a_host,
        record,
        proxy,
        broker_answer,
        where,
        user_of_ssh,
    )
}

#: Inputs that reach much code, as starting points for generators and the fuzzer.
SEEDS: dict[str, list[bytes]] = {
    "request": [
        b"protocol=https\nhost=bitbucket.org\npath=acme/widgets.git\nusername=me\npassword=x\n\n",
        b"capability[]=state\nprotocol=https\nhost=bitbucket.org:443\npath=a/b\nstate[]=bbjwt:0\nstate[]=\n\nhost=x\n",
    ],
    "path_of_a_request": [
        b"acme/widgets.git/info/lfs/objects/batch",
        b"/%7B12345678-1234-1234-1234-123456789abc%7D/{12345678-1234-1234-1234-123456789abc}/wiki",
    ],
    "url_of_a_person": [b"https://me@bitbucket.org/acme/widgets", b"git@bitbucket.org:acme/widgets.git"],
    "swap_answer": [
        b'{"access_token": "abc", "token_type": "bearer", "expires_in": 7200, "scopes": "repository", "scope": ""}'
    ],
    "lookup_answer": [b'{"uuid": "{12345678-1234-1234-1234-123456789abc}", "full_name": "acme/widgets"}'],
    "error_answer": [
        b'{"error": "invalid_scope", "error_description": "no"}',
        b'{"type": "error", "error": {"message": "no", "detail": {"required": ["repository"], "granted": []}}}',
        b"<html>",
    ],
    "http_response": [
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\nabc",
        b"HTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 3\r\nX: a\r\n b\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n0\r\nX: y\r\n\r\n",
        b"HTTP/1.0 404 Not Found\n\nabc",
    ],
    "foreign_text": [
        b"Your credentials lack one or more required privilege scopes: read:repository:bitbucket",
        b"eyJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJhIn0.c2lnbmF0dXJl %65%79 \\u0065yJ &#101; aGVsbG8gd29ybGQgaGVsbG8gd29ybGQ=",
    ],
    "headers": [b"Wed, 21 Oct 2015 07:28:00 GMT"],
    "payload": [
        b'{"clientInfo": {"key": "k", "clientKey": "c", "sharedSecret": "s3cret", "baseUrl": "https://bitbucket.org",'
        b'"principal": {"links": {"html": {"href": "https://bitbucket.org/acme/"}}, "uuid": "{1}"}}}',
        b'{"kind": "connect", "key": "k", "clientKey": "c", "baseUrl": "https://bitbucket.org", "secretPlace": "file",'
        b'"baseApiUrl": "https://api.bitbucket.org", "workspaceUuid": "", "registration": "1", "keyringBackend": ""}',
        b'{"SecretString": "{\\"oauthConsumer\\": {\\"key\\": \\"k\\", \\"secret\\": \\"s3cret\\", \\"workspace\\":'
        b' \\"acme\\", \\"afterConnect\\": true}, \\"clientInfo\\": {\\"key\\": \\"k\\"}}"}',
        b'{"data": {"data": {"body": {"id": 1, "key": "clientInfo", "val": "{\\"sharedSecret\\": \\"s3cret\\"}"}}}}',
    ],
    "payloads_of_a_person": [
        b'[{"clientInfo": {"key": "k"}}, {"oauthConsumer": {"key": "k"}}]',
        b'{"key": "k", "sharedSecret": "s3cret"}\n{"key": "l"}\n',
        b"eyJrZXkiOiAiayJ9",
    ],
    "folder_of_a_host": [b"bitbucket.org", b"[::1]:8443", b"../..", b"localhost:8443"],
    "record": [whole_record().to_bytes()],
    "broker_answer": [
        b"username=x-token-auth\npassword=abc\npassword_expiry_utc=9999999999\nhost=bitbucket.org\npath=acme/widgets\n\n",
        b"quit=1\nbbjwt-error=not eyJhbGciOiJIUzI1NiJ9.eyJpc3Mi.c2ln\n\n",
        b"password=e30.eyJleHAiOiAxODAwMDAwMDAwfQ.c2ln\nbbjwt-opens=workspace\n\n",
        b"quit=1\n\0\0git-credential-bbjwt: error: no",
    ],
    "where": [b"unix:/run/bbjwt/socket", b" HTTPS://Broker.Example:443/a/", b"https://[::1]:8443", b"ssh -T broker"],
    "user_of_ssh": [
        b"publickey ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ\n",
        b"publickey ssh-ed25519-cert-v01@openssh.com AAAAIHNzaC1lZDI1NTE5LWNlcnQtdjAxQG9wZW5zc2guY29t\n",
    ],
    "proxy": [b"http://user:secret@proxy.example:3128", b"https://[::1]:1"],
}
