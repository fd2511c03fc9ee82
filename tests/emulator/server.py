"""The servers: TLS, HTTP, git over HTTPS, LFS, and misbehaviour where a test wants it."""

from __future__ import annotations

import base64
import contextlib
import functools
import json
import os
import socket
import ssl
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, quote, unquote, urlsplit

import trustme

from tests.emulator.model import (
    CHALLENGE,
    NOT_SEEN,
    TOKEN_PATH,
    Fault,
    HostedRepository,
    IssuedToken,
    RefusalError,
    Seen,
    gone,
    oauth_error,
    scheme_of,
    with_implied,
)

if TYPE_CHECKING:
    from tests.emulator import Emulator


@functools.cache
def authority_for(name: str, clients: trustme.CA | None) -> tuple[bytes, ssl.SSLContext]:
    """Return an authority's certificate, and the TLS context of a server that it certifies; one for all emulators."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(context)
    # Over a real distance, session tickets arrive after a client has begun to wait for its answer. Here they would come
    # before that, and hide errors of clients that have to wait.
    context.num_tickets = 0
    if clients is not None:
        clients.configure_trust(context)
        context.verify_mode = ssl.CERT_REQUIRED
    return authority.cert_pem.bytes(), context


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def __init__(self, emulator: Emulator, origin: str, context: ssl.SSLContext) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.emulator = emulator
        self.origin = origin
        self.context = context

    def handle_error(self, request: object, client_address: object) -> None:
        """Ignore a client that goes away or never speaks TLS."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]  # typeshed names a narrower type


class Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    timeout = 60

    def setup(self) -> None:
        # In the connection's own thread, because a slow handshake must not delay other connections.
        self.server.emulator.count_connection()
        # Before 3.13 Python leaves the new socket open if the client is gone (findings/), which pytest reports.
        self.request.getpeername()
        self.request = self.server.context.wrap_socket(self.request, server_side=True)
        super().setup()

    def finish(self) -> None:
        with contextlib.suppress(OSError):
            super().finish()
        # The server closes the plain socket it accepted; this one wraps it.
        self.request.close()

    def log_message(self, *arguments: object) -> None:
        """Everything is in `Emulator.seen`."""

    def date_time_string(self, timestamp: float | None = None) -> str:
        return formatdate(self.server.emulator.now() if timestamp is None else timestamp, usegmt=True)

    def do_GET(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def do_PUT(self) -> None:
        self._serve()

    def _serve(self) -> None:
        emulator = self.server.emulator
        if not emulator.rules.keep_alive:
            self.protocol_version, self.close_connection = "HTTP/1.0", True
        parts = urlsplit(self.path)
        query = parse_qsl(parts.query, keep_blank_values=True)
        seen = Seen(self.server.origin, self.command, parts.path, query, self.headers, received=time.monotonic())
        body = self._body()
        emulator.record(seen)
        if seen.origin == "storage":
            self._storage(seen, body)
            return
        kind = "api" if seen.origin == "api" else "token" if seen.path == TOKEN_PATH else "git"
        fault = emulator.take_fault(kind) or (emulator.rules.rest_fault if kind == "api" else None)
        if fault and self._misbehaves_at_once(seen, fault):
            return
        try:
            if emulator.rules.gone:
                # To git in plain text.
                plain = RefusalError(410, b"CHANGE-9999 - Functionality has been deprecated")
                raise plain if kind == "git" else gone("CHANGE-9999")
            if kind == "git":
                self._git(seen, body, parts.query)
                return
            if kind == "token":
                if self.command != "POST":
                    raise oauth_error(405, "invalid_request", "POST only")
                fields = parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True)
                seen.form = dict(fields)
                if len(fields) != len(seen.form):
                    raise oauth_error(400, "invalid_request", "a field occurs twice")
                answer: object = emulator.grant(seen)
            else:
                answer = emulator.rest(seen)
            if fault and fault.change:
                answer = fault.change(answer) if isinstance(answer, dict) else answer
            self._answer(seen, 200, answer, emulator.rules.announces | seen.answer_headers, fault)
        except RefusalError as refusal:
            self._answer(seen, refusal.status, refusal.body, refusal.headers, fault)

    def _misbehaves_at_once(self, seen: Seen, fault: Fault) -> bool:
        if fault.delay:
            time.sleep(fault.delay)
        if fault.silent:
            self.close_connection = True
            with contextlib.suppress(OSError):
                self.connection.recv(1)  # It returns nothing when the client goes away.
            return True
        if fault.reset:
            # RST instead of FIN: zero linger.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True
            with contextlib.suppress(OSError):
                self.connection.close()
            return True
        if fault.status is not None:
            self._answer(seen, fault.status, fault.body or b"", fault.headers, fault)
            return True
        return False

    def _body(self) -> bytes:
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            return b"".join(self._chunks())
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _chunks(self) -> Iterator[bytes]:
        while size := int(self.rfile.readline().strip() or b"0", 16):
            yield self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()

    def _answer(
        self, seen: Seen, status: int, body: object, headers: dict[str, str], fault: Fault | None = None
    ) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        if fault and fault.body is not None:
            data = fault.body
        seen.status, seen.answered = status, time.monotonic()
        self.send_response(status)
        kind = "text/plain" if isinstance(body, bytes) else "application/json; charset=utf-8"
        for name, value in ({"Content-Type": kind} | headers | (fault.headers if fault else {})).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data) + (100 if fault and fault.truncate else 0)))
        self.end_headers()
        with contextlib.suppress(OSError):
            if fault and fault.drip:
                self.wfile.flush()
                for position in range(len(data)):
                    self.wfile.write(data[position : position + 1])
                    self.wfile.flush()
                    time.sleep(fault.drip)
            else:
                self.wfile.write(data)
            self.wfile.flush()
        if fault and fault.truncate:
            self.close_connection = True

    # Git over HTTPS ("Use OAuth on Bitbucket Cloud"), LFS.

    def _git(self, seen: Seen, body: bytes, query: str) -> None:
        emulator = self.server.emulator
        segments = [unquote(segment) for segment in seen.path.strip("/").split("/")]
        if len(segments) < 3:
            raise RefusalError(404, b"not found")
        workspace, slug, rest = segments[0], segments[1].removesuffix(".git"), segments[2:]
        repository = emulator.find(workspace, slug)
        issued = self._basic_token(seen)
        if repository is not None and repository.is_public and "Authorization" not in self.headers:
            self._http_backend(seen, repository.path, "/".join(rest), query, body)
            return
        if issued is None or (rest[:2] == ["info", "lfs"] and emulator.rules.lfs_refuses):
            # The answer does not say whether the repository exists.
            raise RefusalError(401, NOT_SEEN.encode(), CHALLENGE)
        if emulator.rules.refuses:
            raise RefusalError(403, emulator.rules.refuses.encode())
        if repository is None or rest[0] == "wiki":  # Wikis were removed on 20 August 2026.
            raise RefusalError(404, NOT_SEEN.encode())
        pushes = "git-receive-pack" in (rest[-1], dict(seen.query).get("service"))
        uploads = rest[:2] == ["info", "lfs"] and (self.command == "PUT" or b'"upload"' in body)
        needed = "repository:write" if pushes or uploads else "repository"
        if issued.workspace != repository.workspace or issued.repository not in (None, repository.uuid):
            status = emulator.rules.another_repositorys_token
            raise RefusalError(status, NOT_SEEN.encode(), CHALLENGE if status == 401 else {})
        if needed not in with_implied(issued.scopes):
            raise RefusalError(403, b"Your credentials lack one or more required privilege scopes.")
        path = repository.path
        if rest[:2] == ["info", "lfs"]:
            self._lfs(seen, repository, rest[2:], body)
        else:
            self._http_backend(seen, path, "/".join(rest), query, body)

    def _basic_token(self, seen: Seen) -> IssuedToken | None:
        encoded = scheme_of(seen, "Basic")
        if encoded is None:
            return None
        try:
            user, _, password = base64.b64decode(encoded).decode().partition(":")
        except ValueError:
            return None
        return self.server.emulator.check_token(password) if user == "x-token-auth" else None

    def _lfs(self, seen: Seen, repository: HostedRepository, rest: list[str], body: bytes) -> None:
        """The basic transfer of the Git LFS API specification."""
        store = repository.path / "lfs-objects"
        if rest == ["objects", "batch"]:
            asked = json.loads(body)
            emulator = self.server.emulator
            # "Git LFS API", actions: they have their own header, so git-lfs asks no helper for this host.
            place = f"{emulator.storage_url}/{quote(repository.uuid)}"
            header = {"Authorization": f"Storage {emulator.storage_key}"}
            objects = []
            for one in asked["objects"]:
                known = (store / one["oid"]).exists()
                actions = {}
                if asked["operation"] == "upload" and not known:
                    actions["upload"] = {"href": f"{place}/{one['oid']}", "header": header}
                elif asked["operation"] == "download" and known:
                    actions["download"] = {"href": f"{place}/{one['oid']}", "header": header}
                objects.append({**one, "actions": actions, "authenticated": True})
            answer = json.dumps({"transfer": "basic", "objects": objects}).encode()
            self._answer(seen, 200, answer, {"Content-Type": "application/vnd.git-lfs+json"})
        else:
            raise RefusalError(404, b"not found")

    def _storage(self, seen: Seen, body: bytes) -> None:
        """The storage host of LFS, which accepts only its own key."""
        emulator = self.server.emulator
        uuid_of, _, oid = unquote(seen.path).strip("/").partition("/")
        stores = [one.path / "lfs-objects" for one in emulator.repositories if one.uuid == uuid_of]
        if scheme_of(seen, "Storage") != emulator.storage_key or not stores or not oid.isalnum():
            self._answer(seen, 403, b"", {})
        elif self.command == "PUT":
            stores[0].mkdir(exist_ok=True)
            (stores[0] / oid).write_bytes(body)
            self._answer(seen, 200, b"", {})
        else:
            self._answer(seen, 200, (stores[0] / oid).read_bytes(), {})

    def _http_backend(self, seen: Seen, path: Path, rest: str, query: str, body: bytes) -> None:
        environment = {
            "PATH": os.environ["PATH"],
            "GIT_PROJECT_ROOT": str(path),
            "GIT_HTTP_EXPORT_ALL": "1",
            "GIT_CONFIG_NOSYSTEM": "1",
            # The repository may belong to another user than the one who runs the tests.
            "GIT_CONFIG_COUNT": "1",
            "GIT_CONFIG_KEY_0": "safe.directory",
            "GIT_CONFIG_VALUE_0": "*",
            "PATH_INFO": f"/{rest}",
            "REQUEST_METHOD": self.command,
            "QUERY_STRING": query,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "CONTENT_LENGTH": str(len(body)),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
            "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
            "REMOTE_USER": "x-token-auth",
            "REMOTE_ADDR": "127.0.0.1",
        }
        done = subprocess.run(["git", "http-backend"], input=body, capture_output=True, env=environment)
        head, _, content = done.stdout.partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().splitlines() if ": " in line)
        status = int(headers.pop("Status", "200").split()[0])
        self._answer(seen, status, content, headers)
