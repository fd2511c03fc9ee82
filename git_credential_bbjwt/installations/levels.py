"""Levels of precedence: the installations of each source, or the command or broker that it is."""

import os
from collections.abc import Callable, Iterator

from git_credential_bbjwt.core.failures import InstallationError
from git_credential_bbjwt.core.repository import is_name, is_uuid
from git_credential_bbjwt.installations.asked import Asked
from git_credential_bbjwt.installations.installation import Installation
from git_credential_bbjwt.installations.payload import parse_payload
from git_credential_bbjwt.installations.registry import Registry, file_of, host_folder, host_of
from git_credential_bbjwt.installations.registry_entry import parse_entries
from git_credential_bbjwt.installations.source import Named, Payload, Source


class Level:
    """The installations of one source. ``problem`` says why it has none, if so."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.problem: InstallationError | None = None

    def names(self, host: str) -> bool:
        """Return whether it serves ``host``; for a broken source, whether it might."""
        raise NotImplementedError

    def of_workspace(self, workspace: str, host: str = "") -> list[Installation]:
        """Return those that may serve ``workspace``, a slug or a UUID, the newest first; ``host`` is a hint.

        Raises InstallationError for a broken source.
        """
        raise NotImplementedError

    def __iter__(self) -> Iterator[Installation]:
        """Iterate over all of them, in the order of `of_workspace`. Raises InstallationError at one that is broken."""
        return iter(())

    def hosts(self) -> list[str]:
        """Return the hosts that are known to be served."""
        return []


class Given(Level):
    """Installations that were read whole."""

    def __init__(self, source: Source, installations: Callable[[], list[Installation]]) -> None:
        super().__init__(source)
        self._installations: list[Installation] = []
        try:
            if source.problem is not None:
                raise unreadable(source)
            self._installations = installations()
            if source.exposed and isinstance(source, Payload):
                self._installations = [one._replace(is_exposed=True) for one in self._installations]
        except InstallationError as problem:
            self.problem = problem

    def names(self, host: str) -> bool:
        if self.problem is not None:
            return self.source.concerns(host)
        return host in self.hosts()

    def of_workspace(self, workspace: str, host: str = "") -> list[Installation]:  # noqa: ARG002  # it has few
        if self.problem is not None:
            raise self.problem
        return self._installations

    def __iter__(self) -> Iterator[Installation]:
        return iter(self._installations)

    def hosts(self) -> list[str]:
        return [one.host for one in self._installations]


class _Registered(Level):
    """Installations of a registry, of which each look reads what it needs."""

    def __init__(self, source: Registry) -> None:
        super().__init__(source)
        self._registry = source
        if source.problem is not None:
            self.problem = unreadable(source)

    def names(self, host: str) -> bool:
        return self.problem is None and self._registry.names(host)

    def of_workspace(self, workspace: str, host: str = "") -> list[Installation]:
        found: list[Installation] = []
        if not is_name(workspace) and not is_uuid(workspace):
            return found  # It would be a path.
        for one in [host] if host else self.hosts():
            for slug, data, _ in self._registry.entries(one, workspace):
                found += _in_order(parse_entries(data, slug, self._registry.where))
        if self._registry.problem is not None:
            raise unreadable(self._registry)
        return [one for one in found if workspace in (*one.workspaces, one.workspace_uuid)]

    def __iter__(self) -> Iterator[Installation]:
        for host in self.hosts():
            for slug in registered_slugs(self._registry.where, host):
                for _, data, _ in self._registry.entries(host, slug):
                    yield from _in_order(parse_entries(data, slug, self._registry.where))
                if self._registry.problem is not None:
                    raise unreadable(self._registry)

    def hosts(self) -> list[str]:
        return [] if self.problem is not None else registered_hosts(self._registry.where)


def _in_order(entries: list[Installation]) -> list[Installation]:
    """Sort a workspace's entries as they are asked: apps before consumers, and of each kind the newest first."""
    newest_first = entries[::-1]
    return sorted(newest_first, key=lambda one: (one.is_consumer, one.after_connect))


class ToBeAsked(Level):
    """A command or a broker, which is asked when a token is needed."""

    def __init__(self, source: Asked) -> None:
        super().__init__(source)
        self.asked = source

    def names(self, host: str) -> bool:
        return host in self.asked.hosts

    def of_workspace(self, workspace: str, host: str = "") -> list[Installation]:  # noqa: ARG002  # it holds none
        return []


def unreadable(source: Source) -> InstallationError:
    """Return the error for a source that cannot be read or trusted."""
    return InstallationError(f"cannot use the installation in {source.where}: {source.problem}", source.remedy)


def registered_hosts(where: str) -> list[str]:
    """Return the hosts of the registry's folder ``where``."""
    try:
        with os.scandir(where) as found:
            # A link is listed, to be an error when it is read.
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
    """Return the level of ``source``, by its kind."""
    if isinstance(source, Asked):
        return ToBeAsked(source)
    if isinstance(source, Registry):
        return _Registered(source)
    assert isinstance(source, Named)
    data = source.data
    if data is None and source.problem is None:
        return Given(source, list)
    return Given(source, lambda: parse_payload(data or b"", source.where))
