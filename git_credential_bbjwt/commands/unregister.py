"""Forget an installation: its registry entry, its shared secret, its cached tokens.

Example:
  git-credential-bbjwt unregister acme
"""

import argparse

from git_credential_bbjwt import diagnostics
from git_credential_bbjwt.errors import UsageError
from git_credential_bbjwt.failures import InstallationError
from git_credential_bbjwt.installations.registry import RegistryFolder
from git_credential_bbjwt.installations.secret_store import remove_secret
from git_credential_bbjwt.options import HelperOptions
from git_credential_bbjwt.tokens.stores import forget_workspaces


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("workspace", nargs="?", metavar="WORKSPACE", help="the workspace's slug")
    parser.add_argument("--app", metavar="KEY", help="only this app, where several are registered")
    parser.add_argument("--all", action="store_true", help="every registered installation")
    parser.add_argument("--system", action="store_true", help="in the system registry")


def run(options: HelperOptions, arguments: argparse.Namespace) -> int:
    """Remove it. Raises InstallationError where nothing is registered, or several apps are."""
    if bool(arguments.workspace) == arguments.all:
        raise UsageError("give a workspace or --all")
    registry = RegistryFolder(system=arguments.system)
    if arguments.all:
        for one in list(registry):
            for workspace in one.workspaces:
                _unregister(registry, workspace, one.app_key)
        registry.remove_leftovers()
    else:
        _unregister(registry, arguments.workspace.lower(), arguments.app or options.app)
    return 0


def _unregister(registry: RegistryFolder, workspace: str, app: str) -> None:
    with registry.changing() as change:
        found = [one for one in change.of_workspace(workspace) if app in ("", one.app_key)]
        if not found:
            raise InstallationError(
                f"no installation is registered for the workspace {workspace}", "git-credential-bbjwt list shows all"
            )
        if len(found) > 1:
            keys = ", ".join(sorted(one.app_key for one in found))
            raise InstallationError(f"several apps are registered for {workspace}: {keys}", "name one with --app KEY")
        (leaving,) = found
        left = change.take_out(leaving, workspace)
        change.commit()
    forget_workspaces(leaving.keys)
    if left is None:
        remove_secret(leaving)
    diagnostics.note(f"unregistered {workspace} (app {leaving.app_key})")
