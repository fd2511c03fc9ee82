"""Drop the cached tokens of one repository, or all of them.

Registered secrets stay.

Examples:
  git-credential-bbjwt forget https://bitbucket.org/acme/widgets
  git-credential-bbjwt forget --all
"""

import argparse

from git_credential_bbjwt.core.options import HelperOptions
from git_credential_bbjwt.core.output import counted, note
from git_credential_bbjwt.git.clone_urls import parse_url
from git_credential_bbjwt.tokens.tidying import clear_all, forget, forget_refusals, forget_repository


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("url", nargs="?", metavar="URL", help="clone URL of the repository")
    which.add_argument("--all", action="store_true", help="all cached tokens")


def execute(options: HelperOptions, arguments: argparse.Namespace) -> int:  # noqa: ARG001  # every command's shape
    """Drop them. Raises NotARepositoryError."""
    if arguments.all:
        forget_all()
        return 0
    repository = parse_url(arguments.url)
    forget_refusals()
    note(f"dropped {counted(forget_repository(repository), 'cached token')}")
    return 0


def forget_all() -> None:
    """Drop all cached tokens, and remove the cache's files."""
    dropped = forget(lambda _: True)
    clear_all()
    note(f"dropped {counted(dropped, 'cached token')}")
