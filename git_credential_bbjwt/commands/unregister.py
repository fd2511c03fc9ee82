"""Forget an installation: its registry entry, its shared secret, its cached tokens.

Example:
  git-credential-bbjwt unregister acme
"""

import argparse

from git_credential_bbjwt.core.failures import InstallationError, UsageError
from git_credential_bbjwt.core.options import HelperOptions
from git_credential_bbjwt.core.output import note
from git_credential_bbjwt.installations.installation import Installation
from git_credential_bbjwt.installations.registry_changes import RegistryFolder, in_batches
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
        registry.remove_leftovers()
    else:
        _unregister(registry, arguments.workspace.lower(), arguments.app or options.app)
    return 0


def _unregister_whole(registry: RegistryFolder, installations: list[Installation]) -> None:
    with registry.changing() as change:
        # Another process may have changed some of them since.
        leaving = [one for one in map(change.same, installations) if one is not None]
        for one in leaving:
            change.take_out(one, *one.workspaces)
            # Before its entry: if this process is killed, what is left can still be found and removed.
            remove_secret(one)
        change.commit()
    forget_workspaces(key for one in leaving for key in one.keys)
    for one in leaving:
        for workspace in one.workspaces:
            _tell(one, workspace)


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
        left = change.take_out(leaving, workspace)
        if left is None:
            remove_secret(leaving)  # First: if it cannot be removed, its entry stays and is not forgotten.
        change.commit()
    forget_workspaces(leaving.keys)
    _tell(leaving, workspace)


def _tell(installation: Installation, workspace: str) -> None:
    note(f"unregistered {workspace} ({installation.name})")
