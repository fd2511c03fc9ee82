"""Where installations come from, read as raw bytes: cheap enough for every call, exact enough to trust.

The order is the rule, and `read_sources` is the one place it stands in: options, variables, systemd credentials, the
broker, the user registry, the system registry. The first whose installation serves the repository is used (`payload`
decides that). The digest of all of them stands in every cached token's record, so that any change, a replaced secret
included, makes the fast path step aside.
"""

import os

from git_credential_bbjwt.options import HelperOptions
from git_credential_bbjwt.system import places
from git_credential_bbjwt.system.digest import digest
from git_credential_bbjwt.system.private_folder import why_not_trusted

REGISTRY_FILE = "installations.json"

#: The one host known without any installation: Bitbucket Cloud's.
CLOUD_HOST = "bitbucket.org"

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"

# What is longer is no path ("PATH_MAX"), and asking the system for it is an error of its own.
_LONGEST_PATH = 4096

# A registry of thousands of installations is far below this; anything larger is not one.
_MAX_BYTES = 8 * 1024 * 1024


class Source:
    """One place an installation can come from.

    ``data`` is None where nothing can be read, and ``problem`` says why. ``kind`` is ``payload`` (one installation,
    perhaps with its secret), ``registry`` (a list without secrets), ``jwt``, ``command`` or ``broker`` (to be asked
    about ``hosts`` when a token is needed; ``data`` says how). ``exposed`` tells that other users of the machine may
    read the file.
    """

    __slots__ = ("data", "exposed", "hosts", "kind", "problem", "where")

    def __init__(
        self,
        kind: str,
        where: str,
        data: bytes | None,
        problem: str | None = None,
        exposed: bool = False,
        hosts: tuple[str, ...] | None = None,
    ) -> None:
        self.kind = kind
        self.where = where
        self.data = data
        self.problem = problem
        self.exposed = exposed
        self.hosts = hosts

    def may_hold(self, host: str) -> bool:
        """Whether the text of this source might name ``host``: False is certain, True only a reason to look closer."""
        if self.hosts is not None:
            return host in self.hosts
        # A base URL may spell out the port 443 that `host` no longer has, so only the name is looked for.
        name = host if host.endswith("]") else host.rpartition(":")[0] or host
        return _may_hold(self.data, name.encode("utf-8", "surrogateescape"))


class Sources:
    """All that is known on this machine, in the order it is to be asked."""

    __slots__ = ("digest", "hosts", "jwt", "sources")

    def __init__(self, sources: list[Source], jwt: Source | None, hosts: tuple[str, ...]) -> None:
        self.sources = sources
        self.jwt = jwt
        #: The hosts that are ours whatever the sources say: those of ``--host``, else Bitbucket Cloud's.
        self.hosts = hosts
        parts: list[str | bytes] = []
        for source in (*sources, *([jwt] if jwt else [])):
            parts += (source.kind, source.where, source.data or b"")
        self.digest = digest(*parts)

    def may_name(self, host: str) -> bool:
        """Whether any installation might name ``host``: False is certain, True only a reason to look closer."""
        texts = [source for source in self.sources if source.hosts is None]
        if host in self.hosts and (self.jwt or any(source.problem or source.data for source in texts)):
            return True  # A source may turn out broken, which is an error for whom it might have served.
        return any(source.problem or source.may_hold(host) for source in self.sources)


def _may_hold(data: bytes | None, text: bytes) -> bool:
    if not data:
        return False
    data = data.lower()
    if text in data:
        return True
    # JSON can spell any ASCII character as \u00xx: then only a parser knows.
    position = data.find(b"\\u00")
    while position >= 0:
        if data[position + 4 : position + 5] in b"01234567":
            return True
        position = data.find(b"\\u00", position + 4)
    return False


def read_sources(options: HelperOptions) -> Sources:
    """Read every source there is, in their order.

    This runs on every call, for every host, before any check: local reads only, and nothing is raised. What cannot be
    read carries its problem; a command or a broker is named here and asked when a token is needed.
    """
    environ = os.environ
    sources = []
    hosts = options.hosts or (CLOUD_HOST,)
    if options.installation is not None:
        sources.append(_read_file("payload", options.installation, named_by="--installation"))
    if options.installation_command is not None:
        sources.append(_to_ask("command", "--installation-command", options.installation_command, hosts))
    if environ.get("BBJWT_INSTALLATION"):
        sources.append(_read_variable("BBJWT_INSTALLATION"))
    if environ.get("BBJWT_INSTALLATION_COMMAND"):
        command = environ["BBJWT_INSTALLATION_COMMAND"]
        sources.append(_to_ask("command", "the variable BBJWT_INSTALLATION_COMMAND", command, hosts))
    credentials = environ.get("CREDENTIALS_DIRECTORY", "")
    if credentials:
        sources.append(_read_file("payload", credentials + "/bbjwt-installation", optional=True))
    if options.broker is not None:
        sources.append(_to_ask("broker", "the broker", options.broker, hosts))
    for folder in (places.user_config_folder(), places.site_config_folder()):
        if folder is not None:
            sources.append(read_registry(folder))
    return Sources(sources, _read_jwt(), hosts)


def _to_ask(kind: str, where: str, how: str, hosts: tuple[str, ...]) -> Source:
    return Source(kind, where, how.encode("utf-8", "surrogateescape"), hosts=hosts)


def read_registry(folder: str) -> Source:
    """Read the registry in ``folder``; where there is none, ``data`` and ``problem`` are None."""
    path = folder + "/" + REGISTRY_FILE
    source = _read_file("registry", path, optional=True)
    if source.data is None:
        return source
    try:
        problem = why_not_trusted(folder)
    except OSError as gone:
        problem = gone.strerror or "its folder is gone"
    return Source("registry", path, None, problem) if problem else source


def unpacked(data: bytes) -> bytes | None:
    """Return the JSON of a payload that stands in a variable; None for what is neither JSON nor JSON in base64.

    Variables that CI systems mask have to be base64, and editors put a byte order mark before a text.
    """
    data = data.strip().removeprefix(_BYTE_ORDER_MARK).strip()
    if data[:1] in (b"{", b"["):
        return data
    from binascii import Error, a2b_base64

    try:
        data = a2b_base64(b"".join(data.split())).removeprefix(_BYTE_ORDER_MARK).strip()
    except Error:
        return None
    return data if data.startswith(b"{") else None


def is_injected(variable: str) -> bool:
    """Whether the environment's ``variable`` holds a payload itself and not the path of one."""
    value = os.environ.get(variable, "").encode("utf-8", "surrogateescape")
    return bool(value) and not os.path.exists(value) and unpacked(value) is not None


def _read_variable(variable: str) -> Source:
    """A payload in a variable, or in the file it names. Its value is never shown: it may be a secret, misspelt."""
    value = os.environ[variable]
    where = f"the variable {variable}"
    data = value.encode("utf-8", "surrogateescape")
    if len(value) < _LONGEST_PATH and os.path.lexists(value):
        return _read_file("payload", value)
    payload = unpacked(data)
    if payload is None:
        return Source("payload", where, None, "it is neither JSON, nor JSON in base64, nor the path of a file")
    return Source("payload", where, payload)


def _read_jwt() -> Source | None:
    environ = os.environ
    if environ.get("BBJWT_JWT"):
        data = environ["BBJWT_JWT"].encode("utf-8", "surrogateescape")
        return Source("jwt", "the variable BBJWT_JWT", data)
    if environ.get("BBJWT_JWT_FILE"):
        return _read_file("jwt", environ["BBJWT_JWT_FILE"], named_by="BBJWT_JWT_FILE")
    return None


def _read_file(kind: str, path: str, *, optional: bool = False, named_by: str = "") -> Source:
    """Read a file. Where none is there, ``named_by`` is shown and not the path, which may be a secret by mistake."""
    try:
        # Not blocking: a FIFO somebody put there must not hold git up.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError as missing:
        return Source(
            kind, f"the file that {named_by} names" if named_by else path, None, None if optional else missing.strerror
        )
    except (OSError, ValueError) as problem:
        shown = path if os.path.lexists(path.replace("\0", "")) else f"the file that {named_by} names"
        return Source(kind, shown, None, getattr(problem, "strerror", None) or "not a path")
    try:
        found = os.fstat(fd)
        mode = found.st_mode
        if mode & 0o170000 != 0o100000:
            return Source(kind, path, None, "not a regular file")
        if kind == "registry" and (found.st_uid not in (0, os.geteuid()) or mode & 0o022):
            # Who can write here chooses where the JWTs go.
            return Source(kind, path, None, "others can write to it, or it is another user's")
        refused = None
        if kind == "payload" and found.st_uid not in (0, os.geteuid()):
            refused = f"it belongs to another user (number {found.st_uid})"
        elif kind == "payload" and mode & 0o022:
            refused = f"others can write to it (mode {mode & 0o777:04o})"
        data = b""
        while chunk := os.read(fd, 1 << 20):
            data += chunk
            if len(data) > _MAX_BYTES:
                return Source(kind, path, None, "far too large")
        # Where the file is another's, it is by its group or an access control list that we are let in, on purpose: so
        # do systemd with a credential and Kubernetes with a secret.
        exposed = mode & (0o044 if found.st_uid == os.geteuid() else 0o004)
        if not data.strip() and kind != "registry":
            return Source(kind, path, None, "it is empty")
        # Of a refused one the text still tells for which hosts that is an error.
        return Source(kind, path, data, refused, exposed=bool(exposed))
    except OSError as problem:
        return Source(kind, path, None, problem.strerror)
    finally:
        os.close(fd)
