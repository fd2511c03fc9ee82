"""Forget an installation: its entry, its shared secret, its cached tokens.

The secret is removed first. If it cannot be removed, the entry stays, so that
nobody forgets that the secret is there.

Example:
  git-credential-bbjwt unregister acme
"""

import argparse

from git_credential_bbjwt.core.failures import InstallationError, SecretError, UsageError
from git_credential_bbjwt.core.options import HelperOptions
from git_credential_bbjwt.core.output import error, note
from git_credential_bbjwt.installations.installation import Installation, SecretPlace
from git_credential_bbjwt.installations.registry_changes import Change, RegistryFolder, in_batches
from git_credential_bbjwt.secret_stores.secret_store import SecretFile, remove_secret
from git_credential_bbjwt.system.places import APP_NAME
from git_credential_bbjwt.tokens.tidying import forget_workspaces

# After so many failures one after the other the keyring is taken to be out of reach for the rest, too.
_MOST_FAILURES = 3

# Names that an error lists.
_MOST_NAMES = 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("workspace", nargs="?", metavar="WORKSPACE", help="the workspace's slug")
    parser.add_argument("--app", metavar="KEY", help="only this app or OAuth consumer, if several are registered")
    parser.add_argument("--all", action="store_true", help="every registered installation")
    parser.add_argument("--system", action="store_true", help="in the system registry")


def execute(options: HelperOptions, arguments: argparse.Namespace) -> int:
    """Remove it. Raises InstallationError if nothing or several installations are registered, SecretError."""
    if bool(arguments.workspace) == arguments.all:
        raise UsageError("give a workspace or --all")
    registry = RegistryFolder(system=arguments.system)
    if arguments.all:
        return _Everything(registry).unregister()
    _unregister_one(registry, arguments.workspace.lower(), arguments.app or options.app, system=arguments.system)
    return 0


def _unregister_one(registry: RegistryFolder, workspace: str, app: str, *, system: bool) -> None:
    with registry.changing() as change:
        found = [one for one in change.of_workspace(workspace) if app in ("", one.app_key)]
        if not found:
            raise _not_registered(workspace, app, system=system)
        if len(found) > 1:
            names = ", ".join(sorted(f"{one.name} on {one.host}" for one in found))
            raise InstallationError(
                f"several installations are registered for {workspace}: {names}", "name one with --app KEY"
            )
        (leaving,) = found
        _take_out(change, leaving)
        change.commit()
    forget_workspaces(leaving.keys)
    note(f"unregistered {', '.join(leaving.workspaces)} ({leaving.name})")


def _not_registered(workspace: str, app: str, *, system: bool) -> InstallationError:
    there = [] if system else RegistryFolder(system=True).of_workspace(workspace)
    if any(app in ("", one.app_key) for one in there):
        which = f" --app {app}" if app else ""
        return InstallationError(
            f"the workspace {workspace} is in the system registry alone",
            f"as root: git-credential-bbjwt unregister {workspace}{which} --system",
        )
    # A word that names no workspace here is not repeated, because it may be a secret by mistake.
    return InstallationError("no installation is registered for this workspace", f"{APP_NAME} list shows all")


def _take_out(change: Change, leaving: Installation) -> None:
    """Remove the secret, then plan to remove the entry. Raises SecretError."""
    others = [one for one in change.same(leaving) if one.keys != leaving.keys]
    if not any(one.secret_place is leaving.secret_place for one in others):
        remove_secret(leaving)
    change.take_out(leaving)


class _Everything:
    """The whole registry, of which what cannot be unregistered stays."""

    def __init__(self, registry: RegistryFolder) -> None:
        self._registry = registry
        self._done = 0
        self._staying: list[Installation] = []
        self._failures: dict[str, SecretError] = {}
        self._failed_in_a_row = 0

    def unregister(self) -> int:
        """Remove what can be removed; return 1 if something stays. Raises InstallationError."""
        for some in in_batches(list(self._registry)):
            gone = self._unregister(some)
            forget_workspaces(key for one in gone for key in one.keys)
            self._done += len(gone)
        with self._registry.changing() as change:
            change.remove_leftovers()
            files = [one.keyring_user for one in self._registry if one.secret_place is SecretPlace.FILE]
            SecretFile.remove_others(self._registry.config_folder, files)
        note(f"unregistered {self._done} of {self._done + len(self._staying)} installations")
        if not self._staying:
            return 0
        names = ", ".join(f"{one.workspaces[0]} ({one.name})" for one in self._staying[:_MOST_NAMES])
        more = len(self._staying) - _MOST_NAMES
        error(f"these stay registered: {names}{f' and {more} more' if more > 0 else ''}")
        for failure in self._failures.values():
            error(failure.what, failure.hint)
        return 1

    def _unregister(self, some: list[Installation]) -> list[Installation]:
        gone = []
        with self._registry.changing() as change:
            for one in some:
                try:
                    if one.secret_place is SecretPlace.KEYRING and self._failed_in_a_row == _MOST_FAILURES:
                        self._staying.append(one)
                        continue
                    _take_out(change, one)
                    self._failed_in_a_row = 0
                    gone.append(one)
                except SecretError as problem:
                    self._failures[problem.what] = problem
                    self._failed_in_a_row += 1
                    self._staying.append(one)
            change.commit()
        return gone
