"""Drop the cached tokens of one repository, or all of them.

Registered secrets stay.

Examples:
  git-credential-bbjwt forget https://bitbucket.org/acme/widgets
  git-credential-bbjwt forget --all
"""

import argparse

from git_credential_bbjwt.core.clone_urls import parse_url
from git_credential_bbjwt.core.failures import UsageError
from git_credential_bbjwt.core.options import HelperOptions
from git_credential_bbjwt.core.output import counted, note
from git_credential_bbjwt.core.places import APP_NAME
from git_credential_bbjwt.tokens.tidying import clear_all, forget, forget_refusals, forget_repository


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("url", nargs="?", metavar="URL", help="clone URL of the repository")
    parser.add_argument("--all", action="store_true", help="all cached tokens")


def execute(options: HelperOptions, arguments: argparse.Namespace) -> int:  # noqa: ARG001  # every command's shape
    """Drop them. Raises UsageError and NotARepositoryError."""
    if bool(arguments.url) == arguments.all:
        raise UsageError("give either a repository's URL or --all", f"{APP_NAME} forget URL")
    if arguments.all:
        forget_all()
        return 0
    repository = parse_url(arguments.url)
    forget_refusals()
    note(f"dropped {counted(forget_repository(repository), 'cached token')}")
    return 0


def forget_all() -> None:
    """Drop all cached tokens, and remove the cache's files."""
    forget_refusals()
    dropped = forget(lambda _: True)
    clear_all()
    note(f"dropped {counted(dropped, 'cached token')}")
