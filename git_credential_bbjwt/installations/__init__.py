"""Where installations come from, read as raw bytes: cheap enough for every call, exact enough to trust.

`_ORDER` is the one table of them, in the order they are asked; the first whose installation serves the repository is
used (`catalogue` decides that). A stamp of all that they say about a repository stands in its cached token's record, so
that any change, a replaced secret included, makes the fast path step aside.
"""

import os
import stat
import time

from git_credential_bbjwt import Repository
from git_credential_bbjwt.options import HelperOptions
from git_credential_bbjwt.system import (
    file_name,
    open_to_read,
    others_can_read,
    site_config_folder,
    user_config_folder,
    why_not_itself_trusted,
    why_not_ours,
    why_not_trusted,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    _Text = TypeVar("_Text", bound="Text")

#: The one host known without any installation: Bitbucket Cloud's.
CLOUD_HOST = "bitbucket.org"

#: The folder of a registry, and the file that it was in version 1.0.
REGISTRY_FOLDER = "installations"
REGISTRY_FILE = "installations.json"

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"

# What is longer is no path ("PATH_MAX"), and asking the system for it is an error of its own.
_LONGEST_PATH = 4096

# A payload is two kilobytes. Anything far larger is none.
_LONGEST_PAYLOAD = 8 * 1024 * 1024

# The clock that files bear is coarse: one that was changed so shortly ago may be changed again and bear the same time.
# Seconds.
_SETTLED = 0.05

_HEX = frozenset("0123456789abcdef")


class Source:
    """One place an installation can come from: ``where`` in words, and the ``problem`` with reading it, if any.

    ``exposed`` tells that other users of the machine may read a file with a secret in it.
    """

    exposed = False

    def __init__(self, where: str, problem: str | None = None) -> None:
        self.where = where
        self.problem = problem

    def may_name(self, host: str) -> bool:  # noqa: ARG002  # a subclass needs it
        """Whether this might name ``host``: False is certain, True only a reason to look closer."""
        return self.problem is not None

    def concerns(self, host: str) -> bool:
        """Whether what is wrong with this is an error for requests to ``host``, one of ``--host``."""
        return self.may_name(host)

    def stamp(self, repository: Repository) -> str:  # noqa: ARG002  # a subclass needs it
        """What changes whenever anything changes that this says about ``repository``."""
        return "!"

    def is_settled(self) -> bool:
        """Whether what was read still stands there, and `stamp` would notice every change from now on."""
        return True


class Text(Source):
    """What is read whole: one ``data``, None where there is nothing."""

    data: bytes | None = None
    _found: os.stat_result | None = None

    @classmethod
    def of(cls: "type[_Text]", where: str, data: bytes) -> "_Text":
        """One that did not come from a file."""
        source = cls(where)
        source.data = data
        return source

    @classmethod
    def in_file(cls: "type[_Text]", path: str, *, optional: bool = False, named_by: str = "") -> "_Text":
        """Read a file.

        Where none is there, ``named_by`` is shown and not the path, which may be a secret by mistake.
        """
        try:
            fd = open_to_read(path)
        except FileNotFoundError as missing:
            where = f"the file that {named_by} names" if named_by else path
            return cls(where, None if optional else missing.strerror)
        except (OSError, ValueError) as problem:
            shown = path if os.path.lexists(path.replace("\0", "")) else f"the file that {named_by} names"
            return cls(shown, getattr(problem, "strerror", None) or "not a path")
        source = cls(path)
        try:
            source._read(fd)
        except OSError as problem:
            source.problem = problem.strerror
        finally:
            os.close(fd)
        return source

    def _read(self, fd: int) -> None:
        self._found = found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            self.problem = "not a regular file"
            return
        self.problem = self._why_refused(fd, found)
        data = b""
        while chunk := os.read(fd, 1 << 20):
            data += chunk
            if len(data) > _LONGEST_PAYLOAD:
                self.problem = "far too large"
                return
        if not data.strip():
            self.problem = "it is empty"
            return
        self.exposed = others_can_read(fd, found)
        # Of a refused one the text still tells for which hosts that is an error.
        self.data = data

    def _why_refused(self, fd: int, found: os.stat_result) -> str | None:  # noqa: ARG002  # a subclass needs it
        return None

    def stamp(self, repository: Repository) -> str:  # noqa: ARG002  # it is whole
        if self._found is not None:
            return _stamp_of(self._found)
        if self.data is None:
            return "-" if self.problem is None else "!"

        from git_credential_bbjwt.system.digest import digest

        return digest(self.data)

    def is_settled(self) -> bool:
        if self._found is None:
            return True
        again = type(self).in_file(self.where)
        return again._found is not None and again.data == self.data and _is_settled(again._found)


class Named(Text):
    """A text that names the hosts it is for."""

    def may_name(self, host: str) -> bool:
        return super().may_name(host) or self.concerns(host)

    def concerns(self, host: str) -> bool:
        # A base URL may spell out the port 443 that `host` no longer has, so only the name is looked for.
        name = host if host.endswith("]") else host.rpartition(":")[0] or host
        return _holds(self.data, name.encode("utf-8", "surrogateescape"))


class Payload(Named):
    """One installation, perhaps with its secret."""

    def _why_refused(self, fd: int, found: os.stat_result) -> str | None:
        return why_not_ours(fd, found)


class Registry(Source):
    """A registry's folder, of which a call reads what concerns one host and one workspace and nothing else.

    `registry` has the layout and writes it. An entry is one installation, without its secret.
    """

    def __init__(self, path: str) -> None:
        super().__init__(path, _trouble_with(path))
        self._read: dict[str, list[tuple[bytes, os.stat_result]]] = {}

    def may_name(self, host: str) -> bool:
        return super().may_name(host) or self.names(host)

    def names(self, host: str) -> bool:
        """Whether an installation is for ``host``."""
        return os.path.lexists(f"{self.where}/{host_file(host)}")

    def concerns(self, host: str) -> bool:  # noqa: ARG002  # a subclass needs it
        return False  # What cannot be trusted is not believed to name a host.

    def entries(self, workspace: str) -> list[tuple[bytes, os.stat_result]]:
        """What is registered for ``workspace``, a slug or a UUID, on any host; and what the system knows of each file.

        Where something of it is not to be trusted, that is the ``problem``.
        """
        if workspace not in self._read:
            self._read[workspace] = []
            found = self.file(workspace_file(workspace))
            names = [] if found is None else found[0].decode("ascii", "replace").split()
            entries = [self.file(name) for name in names if is_entry(name)]
            self._read[workspace] = [entry for entry in entries if entry is not None]
        return self._read[workspace]

    def file(self, name: str) -> tuple[bytes, os.stat_result] | None:
        """What a file of the folder holds, and what the system knows of it; None where it is missing or not trusted."""
        path = f"{self.where}/{name}"
        try:
            fd = open_to_read(path, through_links=False)
        except FileNotFoundError:
            return None
        except OSError as problem:
            self.problem = f"{path}: {problem.strerror}"
            return None
        try:
            found = os.fstat(fd)
            if not stat.S_ISREG(found.st_mode) or why_not_ours(fd, found):
                self.problem = f"others can write to {path}, or it is another user's"
                return None
            return os.read(fd, found.st_size), found
        finally:
            os.close(fd)

    def stamp(self, repository: Repository) -> str:
        entries = self.entries(repository.workspace)
        return "!" if self.problem is not None else ",".join(_stamp_of(found) for _, found in entries) or "-"


class Sources:
    """All that is known on this machine, in the order it is to be asked.

    ``jwt`` is one signed elsewhere. ``hosts`` are ours whatever the sources say: those of ``--host``, else Bitbucket
    Cloud's.
    """

    def __init__(self, sources: list[Source], jwt: Text | None, hosts: tuple[str, ...]) -> None:
        self.sources = sources
        self.jwt = jwt
        self.hosts = hosts

    def may_name(self, host: str) -> bool:
        """Whether any installation might name ``host``: False is certain, True only a reason to look closer."""
        if host in self.hosts:
            # A payload may turn out broken, which is an error for whom it might have served.
            texts = [source for source in self.sources if isinstance(source, Named)]
            if self.jwt or any(text.problem or text.data for text in texts):
                return True
        return any(source.may_name(host) for source in self.sources)

    def stamp(self, repository: Repository) -> str:
        """What changes whenever anything changes that is said about ``repository``."""
        stamps = [source.stamp(repository) for source in self.sources]
        return ";".join([*stamps, self.jwt.stamp(repository)] if self.jwt else stamps)

    def stamp_to_keep(self, repository: Repository) -> str:
        """The same for a record; empty, which no later stamp is, where a change might still go unnoticed."""
        every = [*self.sources, self.jwt] if self.jwt else self.sources
        return self.stamp(repository) if all(source.is_settled() for source in every) else ""


#: Begins the name of a file that tells of a host.
OF_HOSTS = "host,"


def host_file(host: str) -> str:
    """The file that is there where an installation in the registry is for ``host``: the host, and how many are."""
    return OF_HOSTS + file_name(host, "")


def workspace_file(workspace: str) -> str:
    """The file that lists the entries for a ``workspace``, a slug or a UUID."""
    return "workspace," + file_name(workspace, "")


def is_entry(name: str) -> bool:
    """Whether a file of the registry is named as an entry is: by a digest of the host and the client key."""
    kind, _, digest = name.partition(",")
    return kind == "installation" and len(digest) == 32 and _HEX.issuperset(digest)


def _trouble_with(path: str) -> str | None:
    try:
        return why_not_trusted(os.path.dirname(path)) or why_not_itself_trusted(path) or None
    except OSError as problem:
        return problem.strerror or "it cannot be looked at"


def _stamp_of(found: os.stat_result) -> str:
    return f"{found.st_dev:x}.{found.st_ino:x}.{found.st_size:x}.{found.st_mtime_ns:x}.{found.st_ctime_ns:x}"


def _is_settled(found: os.stat_result) -> bool:
    return abs(time.time() - found.st_ctime) > _SETTLED


def _holds(data: bytes | None, text: bytes) -> bool:
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


def read_registry(folder: str) -> Source:
    """The registry below ``folder``: as it is now, or as version 1.0 left it; what says nothing where there is none."""
    path = f"{folder}/{REGISTRY_FOLDER}"
    if os.path.lexists(path):
        return Registry(path)
    path = f"{folder}/{REGISTRY_FILE}"
    if not os.path.lexists(path):
        return Named(path)
    from git_credential_bbjwt.installations.old_registry import OldRegistry

    return OldRegistry.in_file(path, optional=True)


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


def _payload_in_variable(variable: str) -> Source:
    """A payload in a variable, or in the file it names. Its value is never shown: it may be a secret, misspelt."""
    value = os.environ[variable]
    where = f"the variable {variable}"
    if len(value) < _LONGEST_PATH and os.path.lexists(value):
        return Payload.in_file(value)
    payload = unpacked(value.encode("utf-8", "surrogateescape"))
    if payload is None:
        return Payload(where, "it is neither JSON, nor JSON in base64, nor the path of a file")
    return Payload.of(where, payload)


def _jwt_in_variable() -> Text | None:
    environ = os.environ
    if environ.get("BBJWT_JWT"):
        data = environ["BBJWT_JWT"].encode("utf-8", "surrogateescape")
        return Text.of("the variable BBJWT_JWT", data)
    if environ.get("BBJWT_JWT_FILE"):
        return Text.in_file(environ["BBJWT_JWT_FILE"], named_by="BBJWT_JWT_FILE")
    return None


def _of_option(options: HelperOptions, hosts: tuple[str, ...]) -> Source | None:  # noqa: ARG001  # every row's shape
    if options.installation is None:
        return None
    return Payload.in_file(options.installation, named_by="--installation")


def _of_option_command(options: HelperOptions, hosts: tuple[str, ...]) -> Source | None:
    if options.installation_command is None:
        return None
    from git_credential_bbjwt.installations.asked import Command

    return Command("--installation-command", options.installation_command, hosts)


def _of_variable(options: HelperOptions, hosts: tuple[str, ...]) -> Source | None:  # noqa: ARG001  # as above
    return _payload_in_variable("BBJWT_INSTALLATION") if os.environ.get("BBJWT_INSTALLATION") else None


def _of_variable_command(options: HelperOptions, hosts: tuple[str, ...]) -> Source | None:  # noqa: ARG001  # as above
    command = os.environ.get("BBJWT_INSTALLATION_COMMAND")
    if not command:
        return None
    from git_credential_bbjwt.installations.asked import Command

    return Command("the variable BBJWT_INSTALLATION_COMMAND", command, hosts)


def _of_systemd(options: HelperOptions, hosts: tuple[str, ...]) -> Source | None:  # noqa: ARG001  # as above
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    return Payload.in_file(folder + "/bbjwt-installation", optional=True) if folder else None


def _of_broker(options: HelperOptions, hosts: tuple[str, ...]) -> Source | None:
    if options.broker is None:
        return None
    from git_credential_bbjwt.installations.asked import Broker

    return Broker("the broker", options.broker, hosts)


def _of_user(options: HelperOptions, hosts: tuple[str, ...]) -> Source | None:  # noqa: ARG001  # as above
    folder = user_config_folder()
    return None if folder is None else read_registry(folder)


def _of_system(options: HelperOptions, hosts: tuple[str, ...]) -> Source | None:  # noqa: ARG001  # as above
    return read_registry(site_config_folder())


# Where installations come from, in the order they are asked. Each is read on every call, for every host and before any
# check: locally, and nothing is raised. What cannot be read carries its problem; a command or a broker is named here
# and asked when a token is needed.
_ORDER: "tuple[Callable[[HelperOptions, tuple[str, ...]], Source | None], ...]" = (
    _of_option,
    _of_option_command,
    _of_variable,
    _of_variable_command,
    _of_systemd,
    _of_broker,
    _of_user,
    _of_system,
)

#: Variables that mean an installation. Those of the first kind may hold a path, which `exec` makes absolute.
PATH_VARIABLES = ("BBJWT_INSTALLATION", "BBJWT_JWT_FILE")
VARIABLES = (*PATH_VARIABLES, "BBJWT_JWT", "BBJWT_INSTALLATION_COMMAND", "BBJWT_BROKER")


def read_sources(options: HelperOptions) -> Sources:
    """Read every source there is, in their order."""
    hosts = options.hosts or (CLOUD_HOST,)
    found = [read(options, hosts) for read in _ORDER]
    return Sources([source for source in found if source is not None], _jwt_in_variable(), hosts)
