"""Remove from git's configuration exactly what `configure` wrote there.

Example:
  git-credential-bbjwt unconfigure
"""

import argparse

from git_credential_bbjwt.commands.configure import add_level
from git_credential_bbjwt.core.options import HelperOptions
from git_credential_bbjwt.core.output import note
from git_credential_bbjwt.git.configure import GitConfiguration


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    add_level(parser)


def execute(options: HelperOptions, arguments: argparse.Namespace) -> int:  # noqa: ARG001  # every command's shape
    """Remove the settings. Raises GitError."""
    removed = GitConfiguration(arguments.level).remove()
    which = f"git's {arguments.level} configuration"
    note(f"{which} is as it was" if removed else f"{which} has nothing that configure wrote")
    return 0
