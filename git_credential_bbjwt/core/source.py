"""Sources of installations, read as raw bytes, because every call reads them.

`sources` has their order; `catalogue` decides which of them serves a repository. The record of a cached token has a
stamp of everything that the sources say about its repository. After any change, even of a secret alone, the stamp
differs, and `entry` leaves the request to `getting`.

The folders of a registry are its index. ``installations/<host>/<workspace>`` contains the registered installations of
one workspace, without secrets, one JSON object per line. ``installations/<host>/<{uuid}>`` contains the slugs of the
workspace with that UUID. A call opens only the one or two files of its repository's workspace, so the amount that it
reads does not grow with the registry.
"""

import os
import stat
import sys
import time

from git_credential_bbjwt.core.files import open_to_read, others_can_read, why_not_trusted, why_not_trusted_itself
from git_credential_bbjwt.core.repository import Repository, is_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeVar

    _Text = TypeVar("_Text", bound="Text")

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"

# Bytes. A real payload has about 2 kB.
_LONGEST_PAYLOAD = 8 * 1024 * 1024

# Seconds. File times are coarse: within this time, a file can be changed twice and have the same time.
_SETTLED = 0.05


#: The folder of a registry, below a configuration folder.
REGISTRY_FOLDER = "installations"


class Source:
    """A place that installations can come from.

    ``where`` names it in errors. ``problem`` says why it cannot be used, or is None. ``remedy`` is the next step for
    that problem. ``exposed`` means that other users of the machine can read a file with a secret.
    """

    exposed = False
    remedy = ""

    def __init__(self, where: str) -> None:
        self.where = where
        self.problem: str | None = None

    def is_there(self) -> bool:
        """Return whether the source has an installation, a command, a broker or a problem."""
        return True

    def may_name(self, host: str) -> bool:  # noqa: ARG002  # a subclass needs it
        """Return False if this source certainly does not serve ``host``; True is only a reason to look closer."""
        return self.problem is not None

    def concerns(self, host: str) -> bool:
        """Return whether the problem of this source is an error for requests to ``host``."""
        return self.may_name(host)

    def stamp(self, repository: Repository) -> str:  # noqa: ARG002  # a subclass needs it
        """Return a text that changes when the source changes what it says about ``repository``."""
        return "!"

    def is_settled(self) -> bool:
        """Return whether the source is unchanged since it was read, and `stamp` will show every later change."""
        return True


class Text(Source):
    """A source that is read whole. ``data`` is its content; None if there is none."""

    #: The noun for its content, for remedies.
    content = "JWT"

    _found: "os.stat_result | None" = None

    def __init__(self, where: str, data: "bytes | None" = None) -> None:
        super().__init__(where)
        self.data = data

    def is_there(self) -> bool:
        return self.data is not None or self.problem is not None

    @classmethod
    def in_file(
        cls: "type[_Text]", path: str, *, optional: bool = False, named_by: str = "", longest: int = _LONGEST_PAYLOAD
    ) -> "_Text":
        """Read a file of at most ``longest`` bytes.

        If the file does not exist, errors show ``named_by`` and not the path, which may be a secret by mistake.
        """
        source = cls(path)
        try:
            fd = open_to_read(path)
        except (OSError, ValueError) as problem:
            if optional and isinstance(problem, FileNotFoundError):
                return source
            if named_by and not os.path.lexists(path.replace("\0", "")):
                source.where = f"the file that {named_by} names"
            source._cannot_be_read(problem)
            return source
        try:
            source._read(fd, longest)
        except OSError as problem:
            source._cannot_be_read(problem)
        finally:
            os.close(fd)
        return source

    def _read(self, fd: int, longest: int) -> None:
        self._found = found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            self._cannot_be_read(found)
            return
        why_not = self._why_refused(found)
        if why_not is not None:
            self.problem, self.remedy = why_not
        data = b""
        while chunk := os.read(fd, 65_536):
            data += chunk
            if len(data) > longest:
                self.problem, self.remedy = "far too large", f"it must hold one {self.content}"
                return
        if not data.strip():
            self.problem, self.remedy = "it is empty", f"write the {self.content} to {self.where}"
            return
        self.exposed = others_can_read(found)
        # A refused file's text is kept: it says for which hosts the refusal is an error.
        self.data = data

    def _why_refused(self, found: os.stat_result) -> "tuple[str, str] | None":  # noqa: ARG002  # a subclass needs it
        return None

    def _cannot_be_read(self, cause: "OSError | ValueError | os.stat_result") -> None:
        from git_credential_bbjwt.core.remedies import remedy_for

        self.problem, self.remedy = remedy_for(cause, self.where)

    def stamp(self, repository: Repository) -> str:  # noqa: ARG002  # the same for all
        if self._found is not None:
            return stamp_of(self._found)
        if self.data is None:
            return "-" if self.problem is None else "!"

        from git_credential_bbjwt.core.digest import digest

        return digest(self.data)

    def is_settled(self) -> bool:
        if self._found is None:
            return True
        again = type(self).in_file(self.where)
        return again._found is not None and again.data == self.data and _is_settled(again._found)


class Payload(Text):
    """A payload, which usually has a secret and names its host. A file that others can write is refused."""

    content = "payload"

    def may_name(self, host: str) -> bool:
        return super().may_name(host) or self.concerns(host)

    def concerns(self, host: str) -> bool:
        # A base URL may have the port 443, which `host` leaves out, so only the name is searched for.
        name = host if host.endswith("]") else host.rpartition(":")[0] or host
        return _holds(self.data, name.encode("utf-8", "surrogateescape"))

    def _why_refused(self, found: os.stat_result) -> "tuple[str, str] | None":
        why_not = why_not_trusted_itself(found, self.where)
        if why_not is None:
            return None
        reason, remedy = why_not
        return reason, f'{remedy}; or, if you trust its content: BBJWT_INSTALLATION="$(cat FILE)"'


def stamp_of(found: os.stat_result) -> str:
    """Return a text that changes whenever a file changes."""
    return f"{found.st_dev:x}.{found.st_ino:x}.{found.st_size:x}.{found.st_mtime_ns:x}.{found.st_ctime_ns:x}"


def _is_settled(found: os.stat_result) -> bool:
    return abs(time.time() - found.st_ctime) > _SETTLED


def _holds(data: bytes | None, text: bytes) -> bool:
    if not data:
        return False
    data = data.lower()
    if text in data or b"\0" in data[:4]:  # PowerShell writes JSON in UTF-16, which needs a parser.
        return True
    # JSON can write any ASCII character as \u00xx, which needs a parser.
    position = data.find(b"\\u00")
    while position >= 0:
        if data[position + 4 : position + 5] in b"01234567":
            return True
        position = data.find(b"\\u00", position + 4)
    return False


def unpacked(data: bytes) -> bytes | None:
    """Return the JSON of a payload in a variable; None if it is neither JSON nor JSON in base64.

    Some CI systems mask a variable only if it is base64. Some editors begin a text with a byte order mark.
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


# Characters of a host in lower case and its port. In folder names "=" replaces ":", which Windows does not allow there.
_HOST = frozenset("abcdefghijklmnopqrstuvwxyz0123456789.-_[]:")
_LONGEST_HOST = 255

# On Windows each file name ends with a comma, because Windows opens a device instead of a file named CON or NUL, and
# drops a dot at the end of a name.
_END = "," if sys.platform == "win32" else ""


class Registry(Source):
    """A registry's folder."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        try:
            if os.path.lexists(path):
                self._distrust(why_not_trusted(os.path.dirname(path)) or _why_not_itself(path))
        except OSError as problem:
            self.cannot_be_read(problem)
        self._read: dict[tuple[str, str], list[tuple[str, bytes, os.stat_result]]] = {}

    def is_there(self) -> bool:
        try:
            return self.problem is not None or bool(os.listdir(self.where))
        except FileNotFoundError:
            return False
        except OSError:
            return True

    def may_name(self, host: str) -> bool:
        return self.names(host) or super().may_name(host)

    def names(self, host: str) -> bool:
        """Return whether an installation is for ``host``. If that cannot be read, ``problem`` says why."""
        folder = host_folder(host)
        try:
            return folder != "" and os.lstat(f"{self.where}/{folder}") is not None
        except PermissionError as problem:
            self.cannot_be_read(problem)
        except OSError:
            pass
        return False

    def concerns(self, host: str) -> bool:  # noqa: ARG002  # a subclass needs it
        return False  # If a registry cannot be trusted, neither can the hosts that it names.

    def entries(self, host: str, workspace: str) -> list[tuple[str, bytes, os.stat_result]]:
        """Return each slug of ``workspace`` (a slug or a UUID) with the content and status of the slug's file.

        If a file cannot be trusted, it is left out, and ``problem`` says why.
        """
        if (host, workspace) not in self._read:
            slugs = [workspace]
            if workspace.startswith("{"):
                slugs = [slug for _, data, _ in self._file(host, workspace) for slug in slugs_of(data)]
            self._read[host, workspace] = [file for slug in slugs for file in self._file(host, slug)]
        return self._read[host, workspace]

    def _file(self, host: str, name: str) -> list[tuple[str, bytes, os.stat_result]]:
        """Read a file of a host's folder; return nothing if it is missing or cannot be trusted."""
        folder = host_folder(host)
        path = f"{self.where}/{folder}/{file_of(name)}"
        try:
            if not folder or self._distrust(_why_not_itself(f"{self.where}/{folder}")):
                return []
            fd = open_to_read(path, through_links=False)
        except FileNotFoundError:
            return []
        except OSError as problem:
            self.cannot_be_read(problem)
            return []
        try:
            found = os.fstat(fd)
            why_not = why_not_trusted_itself(found, path, name=path)
            if not stat.S_ISREG(found.st_mode):
                why_not = f"{path} is not a regular file", f"remove {path}"
            if self._distrust(why_not):
                return []
            return [(name, os.read(fd, found.st_size), found)]
        finally:
            os.close(fd)

    def cannot_be_read(self, cause: OSError) -> None:
        """Set ``problem``: the registry, or the part of it that ``cause`` names, cannot be read."""
        from git_credential_bbjwt.core.remedies import look_at  # Slow to load, and seldom needed.

        path = cause.filename or self.where
        self._distrust((f"{path}: {cause.strerror}", look_at(path)))

    def _distrust(self, why_not: "tuple[str, str] | None") -> bool:
        if why_not is not None:
            self.problem, self.remedy = why_not
        return why_not is not None

    def stamp(self, repository: Repository) -> str:
        entries = self.entries(repository.host, repository.workspace)
        return "!" if self.problem is not None else ",".join(stamp_of(found) for _, _, found in entries) or "-"


def host_folder(host: str) -> str:
    """Return the name of the folder for ``host`` (in lower case); empty if ``host`` is not a valid host."""
    return host.replace(":", "=") if host.strip(".") and _HOST.issuperset(host) and len(host) <= _LONGEST_HOST else ""


def host_of(folder: str) -> str:
    """Return the host of the folder ``folder``; empty if this is not a host's folder."""
    host = folder.replace("=", ":")
    return host if host_folder(host) == folder else ""


def file_of(workspace: str) -> str:
    """Return the name of the file for a workspace's slug or UUID."""
    return workspace + _END


def slugs_of(data: bytes) -> list[str]:
    """Return the slugs in the file of a workspace's UUID."""
    return [slug for slug in data.decode("ascii", "replace").split() if is_name(slug)]


def _why_not_itself(path: str) -> "tuple[str, str] | None":
    found = os.lstat(path)
    if stat.S_ISLNK(found.st_mode):
        return f"{path} is a link", f"replace the link {path} with the folder itself"
    return why_not_trusted_itself(found, path, name=path)
