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

from git_credential_bbjwt.commands.forget import forget_all
from git_credential_bbjwt.commands.unconfigure import unconfigure
from git_credential_bbjwt.commands.unregister import unregister_all
from git_credential_bbjwt.core.failures import CredentialError
from git_credential_bbjwt.core.files import APP_NAME
from git_credential_bbjwt.core.options import HelperOptions
from git_credential_bbjwt.core.output import counted, error, listed, note
from git_credential_bbjwt.core.sources import VARIABLES
from git_credential_bbjwt.git.entries import ConfigLevel
from git_credential_bbjwt.installations.registry_changes import RegistryFolder
from git_credential_bbjwt.system import terminal


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("--system", action="store_true", help="also the system's registry and configuration")


def execute(options: HelperOptions, arguments: argparse.Namespace) -> int:  # noqa: ARG001  # every command's shape
    """Remove everything that can be removed; return 1 if something is left. Raises CredentialError."""
    levels = ["global", "system"] if arguments.system else ["global"]
    if os.isatty(0) and os.isatty(2) and not _agrees(levels):
        note("nothing was removed")
        return 1
    steps: list[Callable[[], object]] = []
    for level in levels:
        # The secrets go first: without the entries nobody would find those that are left.
        steps.append(partial(unregister_all, system=level == "system"))
        steps.append(partial(unconfigure, level))
    failed = sum(map(_fails, [*steps, forget_all]))
    note("still valid: tokens that other programs have, until they expire; the app's secret and payload, at Bitbucket")
    variables = [name for name in VARIABLES if os.environ.get(name)]
    if variables:
        note(f"still set in this environment: {', '.join(variables)}")
    if failed:
        again = f"{APP_NAME} uninstall" + (" --system" if arguments.system else "")
        error("not everything could be removed, see above", f"correct that, then run: {again}")
        return 1
    note(f"to remove the program, run: {removal(os.path.dirname(__file__))}")
    return 0


def _fails(step: Callable[[], object]) -> bool:
    try:
        return bool(step())
    except CredentialError as problem:
        error(problem.what, problem.hint)
        return True


def _agrees(levels: list[str]) -> bool:
    """List what will be removed, and ask. Raises CredentialError."""
    for level in levels:
        note(f"git's {level} configuration: {counted(len(ConfigLevel(level).entries()), 'setting')} of this helper")
    for level in levels:
        installations = RegistryFolder(system=level == "system")
        names = [name for one in installations for name in one.workspaces or ("any workspace",)]
        which = "the system's registry" if level == "system" else "your registry"
        shown = f": {listed(names)}" if names else ""
        note(f"{which}: {counted(len(names), 'installation')} with the secret{shown}")
    note("all cached tokens")
    return terminal.ask("Remove all of this? [y/N] ").lower() in ("y", "yes")


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
