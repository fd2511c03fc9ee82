"""Read the registry of installations. Its folders are the index.

``installations/<host>/<workspace>`` contains the registered installations of one workspace, without secrets, one JSON
object per line. ``installations/<host>/<{uuid}>`` contains the slugs of the workspace with that UUID. A call opens only
the one or two files of its repository's workspace, so the amount that it reads does not grow with the registry.
"""

import os
import stat
import sys

from git_credential_bbjwt.core.ownership import open_to_read, why_not_trusted, why_not_trusted_itself
from git_credential_bbjwt.core.repository import Repository, is_name
from git_credential_bbjwt.installations.source import Source, stamp_of

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
            self._distrust((f"{path}: {problem.strerror}", f"check who owns {path}, and its mode"))
        self._read: dict[tuple[str, str], list[tuple[str, bytes, os.stat_result]]] = {}

    def is_there(self) -> bool:
        try:
            return self.problem is not None or bool(os.listdir(self.where))
        except FileNotFoundError:
            return False
        except OSError:
            return True

    def may_name(self, host: str) -> bool:
        return super().may_name(host) or self.names(host)

    def names(self, host: str) -> bool:
        """Return whether an installation is for ``host``."""
        folder = host_folder(host)
        return folder != "" and os.path.lexists(f"{self.where}/{folder}")

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
            self._distrust((f"{path}: {problem.strerror}", f"check who owns {path}, and its mode"))
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
