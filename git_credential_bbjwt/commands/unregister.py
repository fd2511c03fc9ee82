"""Forget an installation: its entry, its shared secret, its cached tokens.

The secret is removed first. If it cannot be removed, the entry stays, so that
nobody forgets that the secret is there.

Example:
  git-credential-bbjwt unregister acme
"""

import argparse
from itertools import islice

from git_credential_bbjwt.core.failures import InstallationError, SecretError
from git_credential_bbjwt.core.files import APP_NAME
from git_credential_bbjwt.core.options import HelperOptions
from git_credential_bbjwt.core.output import error, listed, note
from git_credential_bbjwt.installations.installation import Installation, SecretPlace
from git_credential_bbjwt.installations.registry_changes import BATCH, Change, RegistryFolder
from git_credential_bbjwt.secret_stores.secret_store import remove_other_files, remove_secret
from git_credential_bbjwt.system.terminal import with_bar
from git_credential_bbjwt.tokens.tidying import forget_workspaces

# After so many failures of the keyring, one after the other, it is not asked about the rest.
_MOST_FAILURES = 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("workspace", nargs="?", type=str.lower, metavar="WORKSPACE", help="the workspace's slug")
    which.add_argument("--all", action="store_true", help="every registered installation")
    parser.add_argument("--system", action="store_true", help="in the system registry")


def execute(options: HelperOptions, arguments: argparse.Namespace) -> int:
    """Remove it. Raises InstallationError if nothing or several installations are registered, SecretError."""
    if arguments.all:
        return unregister_all(system=arguments.system)
    _unregister(arguments.workspace, options.app, system=arguments.system)
    return 0


def _unregister(workspace: str, app: str, *, system: bool) -> None:
    registry = RegistryFolder(system=system)
    with registry.changing() as change:
        found = [one for one in registry.of_workspace(workspace) if app in ("", one.app_key)]
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
            f"as root: {APP_NAME} unregister {workspace}{which} --system",
        )
    # A word that names no workspace here is not repeated, because it may be a secret by mistake.
    return InstallationError("no installation is registered for this workspace", f"{APP_NAME} list shows all")


def _take_out(change: Change, leaving: Installation) -> None:
    """Remove the secret, then plan to remove the entry. Raises SecretError."""
    others = [one for one in change.same(leaving) if one.keys != leaving.keys]
    if not any(one.secret_place is leaving.secret_place for one in others):
        remove_secret(leaving)
    change.take_out(leaving)


class _Removal:
    """The removal of many installations. ``failures`` are the reasons why some stay, each once."""

    def __init__(self) -> None:
        self.failures: dict[str, SecretError] = {}
        self._in_a_row = 0

    def take_out(self, change: Change, leaving: Installation) -> bool:
        """Do as `_take_out`; return False if the secret cannot be removed, or the keyring is out of reach."""
        is_in_keyring = leaving.secret_place is SecretPlace.KEYRING
        if is_in_keyring and self._in_a_row == _MOST_FAILURES:
            return False
        try:
            _take_out(change, leaving)
        except SecretError as problem:
            self.failures[problem.what] = problem
            self._in_a_row += is_in_keyring
            return False
        if is_in_keyring:
            self._in_a_row = 0
        return True


def unregister_all(*, system: bool) -> int:
    """Unregister all installations that can be; return 1 if one or a secret stays. Raises InstallationError."""
    registry = RegistryFolder(system=system)
    registered = list(registry)
    removal = _Removal()
    unregistered: list[Installation] = []
    staying: list[Installation] = []
    numbers = with_bar("unregistered", range(len(registered)))
    try:
        for _ in range(0, len(registered), BATCH):
            gone: list[Installation] = []
            with registry.changing() as change:
                for one in (registered[number] for number in islice(numbers, BATCH)):
                    (gone if removal.take_out(change, one) else staying).append(one)
                change.commit()
            unregistered += gone
    finally:
        numbers.close()
        forget_workspaces(key for one in unregistered for key in one.keys)
    with registry.changing() as change:
        change.remove_leftovers()
        files = [one.keyring_user for one in registry if one.secret_place is SecretPlace.FILE]
        try:
            remove_other_files(registry.config_folder, files)
        except SecretError as problem:
            removal.failures[problem.what] = problem
    note(f"unregistered {len(unregistered)} of {len(registered)} installations")
    if staying:
        error(f"these stay registered: {listed([f'{one.workspaces[0]} ({one.name})' for one in staying])}")
    for failure in removal.failures.values():
        error(failure.what, failure.hint)
    return 1 if removal.failures else 0
