"""Levels of precedence: one for each source, with its installations, its command or its broker."""

import os
from collections.abc import Callable, Iterator, Sequence

from git_credential_bbjwt.core.failures import InstallationError
from git_credential_bbjwt.core.on_demand import OnDemandSource
from git_credential_bbjwt.core.repository import is_name, is_uuid
from git_credential_bbjwt.core.source import Payload, Registry, Source, file_of, host_folder, host_of
from git_credential_bbjwt.installations.installation import Installation
from git_credential_bbjwt.installations.payload import parse_payload
from git_credential_bbjwt.installations.registry_entry import parse_entries


class Level:
    """The installations of one source, or its command or broker. ``problem`` says why they cannot be used, or is None.

    ``read`` returns the installations of a source that was read whole; it raises InstallationError. ``hosts`` are those
    that the source serves even if it has no installations: a command's or a broker's.
    """

    def __init__(
        self, source: Source, read: Callable[[], list[Installation]] = list, *, hosts: Sequence[str] = ()
    ) -> None:
        self.source = source
        self.problem: InstallationError | None = None
        self._hosts = hosts
        self._installations: list[Installation] = []
        try:
            if source.problem is not None:
                raise unreadable(source)
            self._installations = [one._replace(is_exposed=one.is_exposed or source.exposed) for one in read()]
        except InstallationError as problem:
            self.problem = problem

    def names(self, host: str) -> bool:
        """Return whether the source serves ``host``; if the source is broken, whether it might."""
        return host in self.hosts() or (self.problem is not None and self.source.concerns(host))

    def of_workspace(self, workspace: str, host: str = "") -> list[Installation]:  # noqa: ARG002  # all are returned
        """Return the installations that may serve ``workspace`` (a slug or a UUID), the newest first.

        ``host`` is a hint, which only saves reading. Raises InstallationError if the source is broken.
        """
        if self.problem is not None:
            raise self.problem
        return self._installations

    def __iter__(self) -> Iterator[Installation]:
        """Iterate over all installations, in the order of `of_workspace`. Raises InstallationError if one is broken."""
        return iter(self._installations)

    def hosts(self) -> list[str]:
        """Return the hosts that the source is known to serve."""
        return [*self._hosts, *(one.host for one in self._installations)]


class _Registered(Level):
    """Installations of a registry. Each call reads only the files that it needs."""

    def __init__(self, source: Registry) -> None:
        super().__init__(source)
        self._registry = source

    def names(self, host: str) -> bool:
        return self.problem is None and self._registry.names(host)

    def of_workspace(self, workspace: str, host: str = "") -> list[Installation]:
        if not is_name(workspace) and not is_uuid(workspace):
            return []  # Such a name could lead out of the registry.
        found = [one for at in ([host] if host else self.hosts()) for one in self._entries(at, workspace)]
        if self._registry.problem is not None:
            raise unreadable(self._registry)
        return [one for one in found if one.names(workspace)]

    def __iter__(self) -> Iterator[Installation]:
        try:
            for host in self.hosts():
                for slug in registered_slugs(self._registry.where, host):
                    yield from self._entries(host, slug)
        except OSError as problem:
            raise self._unreadable(problem) from problem

    def hosts(self) -> list[str]:
        try:
            return [] if self.problem is not None else registered_hosts(self._registry.where)
        except OSError as problem:
            self.problem = self._unreadable(problem)
            return []

    def _unreadable(self, cause: OSError) -> InstallationError:
        self._registry.cannot_be_read(cause)
        return unreadable(self._registry)

    def _entries(self, host: str, workspace: str) -> list[Installation]:
        """Return a workspace's entries: apps before consumers, the newest of each kind first.

        Raises InstallationError.
        """
        found: list[Installation] = []
        for slug, data, _ in self._registry.entries(host, workspace):
            newest_first = parse_entries(data, slug, self._registry.where)[::-1]
            found += sorted(newest_first, key=lambda one: (one.is_consumer, one.after_connect))
        if self._registry.problem is not None:
            raise unreadable(self._registry)
        return found


def unreadable(source: Source) -> InstallationError:
    """Return the error for a source that cannot be read or trusted."""
    return InstallationError(f"cannot use the installation in {source.where}: {source.problem}", source.remedy)


def registered_hosts(where: str) -> list[str]:
    """Return the hosts of the registry's folder ``where``. Raises OSError."""
    try:
        with os.scandir(where) as found:
            # A link is listed too, so that reading it reports an error.
            folders = [one.name for one in found if one.is_dir() or one.is_symlink()]
        return sorted(host for host in map(host_of, folders) if host)
    except FileNotFoundError:
        return []


def registered_slugs(where: str, host: str) -> list[str]:
    """Return the slugs of the workspaces that are registered for ``host`` in the registry's folder ``where``."""
    try:
        names = os.listdir(f"{where}/{host_folder(host)}")
    except (FileNotFoundError, NotADirectoryError):
        return []
    slugs = (name.removesuffix(file_of("")) for name in names)
    return sorted(slug for slug in slugs if is_name(slug))


def level_of(source: Source) -> Level:
    """Return the level for ``source``, chosen by its class."""
    if isinstance(source, OnDemandSource):
        return Level(source, hosts=source.hosts)
    if isinstance(source, Registry):
        return _Registered(source)
    assert isinstance(source, Payload)
    data = source.data
    return Level(source, lambda: [] if data is None else parse_payload(data, source.where))
