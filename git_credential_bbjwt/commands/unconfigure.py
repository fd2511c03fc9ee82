"""Remove this helper from git's configuration.

The settings beside an entry (useHttpPath, proactiveAuth, insteadOf, an empty
helper) go if no other helper is left for the URL.

Example:
  git-credential-bbjwt unconfigure
"""

import argparse
import shlex

from git_credential_bbjwt.commands.configure import add_level, show
from git_credential_bbjwt.core.options import HelperOptions
from git_credential_bbjwt.core.output import note
from git_credential_bbjwt.git import helper_lines
from git_credential_bbjwt.git.entries import ConfigLevel


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    add_level(parser)


def execute(options: HelperOptions, arguments: argparse.Namespace) -> int:  # noqa: ARG001  # every command's shape
    """Remove the settings. Raises CredentialError."""
    unconfigure(arguments.level)
    return 0


def unconfigure(level: str) -> None:
    """Remove this helper from one level of git's configuration; name its entries in other files.

    Raises CredentialError.
    """
    removed = ConfigLevel(level).remove()
    show(f"removed {key} {shlex.quote(value)}" for key, value in removed)
    if not removed:
        note(f"git's {level} configuration does not name this helper")
    for helper in helper_lines.every():
        if helper.is_this_one:
            note(f"{helper.file} still names this helper, by {helper.key}; to remove it, run: {helper.edit}")
