"""Forget an installation: its registry entry, its shared secret, its cached tokens.

Example:
  git-credential-bbjwt unregister acme
"""

import argparse

from git_credential_bbjwt.core.failures import InstallationError, UsageError
from git_credential_bbjwt.core.options import HelperOptions
from git_credential_bbjwt.core.output import note
from git_credential_bbjwt.installations.installation import Installation
from git_credential_bbjwt.installations.registry_changes import Change, RegistryFolder, in_batches
from git_credential_bbjwt.secret_stores.secret_store import remove_secret
from git_credential_bbjwt.tokens.tidying import forget_workspaces


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("workspace", nargs="?", metavar="WORKSPACE", help="the workspace's slug")
    parser.add_argument("--app", metavar="KEY", help="only this app, where several are registered")
    parser.add_argument("--all", action="store_true", help="every registered installation")
    parser.add_argument("--system", action="store_true", help="in the system registry")


def execute(options: HelperOptions, arguments: argparse.Namespace) -> int:
    """Remove it. Raises InstallationError where nothing is registered, or several apps are."""
    if bool(arguments.workspace) == arguments.all:
        raise UsageError("give a workspace or --all")
    registry = RegistryFolder(system=arguments.system)
    if arguments.all:
        for some in in_batches(list(registry)):
            _unregister_whole(registry, some)
        with registry.changing() as change:
            change.remove_leftovers()
    else:
        _unregister(registry, arguments.workspace.lower(), arguments.app or options.app)
    return 0


def _unregister_whole(registry: RegistryFolder, installations: list[Installation]) -> None:
    with registry.changing() as change:
        for one in installations:
            _take_out(change, one)
        change.commit()
    forget_workspaces(key for one in installations for key in one.keys)
    for one in installations:
        _tell(one)


def _unregister(registry: RegistryFolder, workspace: str, app: str) -> None:
    with registry.changing() as change:
        found = [one for one in change.of_workspace(workspace) if app in ("", one.app_key)]
        if not found:
            raise InstallationError(
                "no installation is registered for this workspace", "git-credential-bbjwt list shows all"
            )
        if len(found) > 1:
            keys = ", ".join(sorted(one.app_key for one in found))
            raise InstallationError(f"several apps are registered for {workspace}: {keys}", "name one with --app KEY")
        (leaving,) = found
        _take_out(change, leaving)
        change.commit()
    forget_workspaces(leaving.keys)
    _tell(leaving)


def _take_out(change: Change, leaving: Installation) -> None:
    """Remove the secret, then plan to remove the entry: if the secret cannot be removed, its entry stays."""
    others = [one for one in change.same(leaving) if one.keys != leaving.keys]
    if not any(one.secret_place is leaving.secret_place for one in others):
        remove_secret(leaving)
    change.take_out(leaving)


def _tell(leaving: Installation) -> None:
    note(f"unregistered {', '.join(leaving.workspaces)} ({leaving.name})")
