"""Remove what this helper has stored, then say how to remove the program.

In one step: unconfigure, unregister --all and forget --all. At a terminal it
lists what it will remove, and asks first. The system's registry and
configuration stay, unless --system is given. It can be run again.

Example:
  git-credential-bbjwt uninstall
"""

import argparse
import os
import shlex
import sys
from collections.abc import Callable
from functools import partial

from git_credential_bbjwt.commands import forget, unconfigure, unregister
from git_credential_bbjwt.core.failures import CredentialError
from git_credential_bbjwt.core.options import HelperOptions
from git_credential_bbjwt.core.output import error, note
from git_credential_bbjwt.git.configure import Level
from git_credential_bbjwt.installations.registry_changes import RegistryFolder
from git_credential_bbjwt.installations.sources import VARIABLES
from git_credential_bbjwt.system.places import APP_NAME

# Workspaces that are named; the rest is counted.
_MOST = 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("--system", action="store_true", help="also the system's registry and configuration")


def execute(options: HelperOptions, arguments: argparse.Namespace) -> int:
    """Remove everything that can be removed; return 1 if something is left. Raises CredentialError."""
    if os.isatty(0) and os.isatty(2) and not _agrees(arguments.system):
        note("nothing was removed")
        return 1
    steps: list[Callable[[], int]] = []
    for system in (False, True) if arguments.system else (False,):
        level = "system" if system else "global"
        # The secrets go first: without the entries nobody would find those that are left.
        everything = argparse.Namespace(workspace=None, all=True, app=None, system=system)
        steps.append(partial(unregister.execute, options, everything))
        steps.append(partial(unconfigure.execute, options, argparse.Namespace(level=level)))
    steps.append(partial(forget.execute, options, argparse.Namespace(url=None, all=True)))
    failed = sum(map(_fails, steps))
    _say_what_stays()
    if failed:
        error("not everything could be removed, see above", f"correct that, then run: {APP_NAME} uninstall")
        return 1
    note(f"to remove the program, run: {removal(os.path.dirname(__file__))}")
    return 0


def _fails(step: Callable[[], int]) -> bool:
    try:
        return step() != 0
    except CredentialError as problem:
        error(problem.what, problem.hint)
        return True


def _agrees(system: bool) -> bool:
    """List what will be removed, and ask. Raises CredentialError."""
    for level in ("global", "system") if system else ("global",):
        settings = len(Level(level).entries())
        note(f"git's {level} configuration: {settings} setting{'' if settings == 1 else 's'} of this helper")
    for is_system in (False, True) if system else (False,):
        names = [name for one in RegistryFolder(system=is_system) for name in one.workspaces or ("any workspace",)]
        more = f" and {len(names) - _MOST} more" if len(names) > _MOST else ""
        shown = f": {', '.join(names[:_MOST])}{more}" if names else ""
        which = "the system's registry" if is_system else "your registry"
        note(f"{which}: {len(names)} installation{'' if len(names) == 1 else 's'} with the secret{shown}")
    note("all cached tokens")
    sys.stderr.write("Remove all of this? [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _say_what_stays() -> None:
    note("still valid: tokens that were handed out, until their end; the app's secret and its payload, at Bitbucket")
    named = [name for name in VARIABLES if os.environ.get(name)]
    if named:
        note(f"still set in this environment: {', '.join(named)}")


def removal(package: str) -> str:
    """Return the command that removes the program, whose Python package is in the folder ``package``."""
    parts = os.path.realpath(package).split(os.sep)
    above = [os.sep.join(parts[:end]) for end in range(len(parts), 1, -1)]
    if any(os.path.exists(f"{folder}/uv-receipt.toml") for folder in above):
        return f"uv tool uninstall {APP_NAME}"
    if any(os.path.exists(f"{folder}/pipx_metadata.json") for folder in above):
        return f"pipx uninstall {APP_NAME}"
    if APP_NAME in parts and sys.platform != "win32":
        # The folder that install.sh makes: /opt/git-credential-bbjwt, or one of this name in the user's data folder.
        return "./install.sh --uninstall" + (" --system" if parts[1:2] == ["opt"] else "")
    return f"{shlex.quote(sys.executable)} -m pip uninstall {APP_NAME}"
