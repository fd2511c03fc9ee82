"""The registry of installations as a call reads it: a folder with one file per installation."""

import os
import stat

from git_credential_bbjwt.core.repository import Repository
from git_credential_bbjwt.installations.source import Named, Source, _stamp_of
from git_credential_bbjwt.system.folder import file_name, open_to_read
from git_credential_bbjwt.system.ownership import why_not_itself_trusted, why_not_ours, why_not_trusted

#: The folder of a registry, and the file that it was in version 1.0.
REGISTRY_FOLDER = "installations"
REGISTRY_FILE = "installations.json"

_HEX = frozenset("0123456789abcdef")


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
