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
from git_credential_bbjwt.core.output import note
from git_credential_bbjwt.tokens.tidying import clear_all, forget, forget_refusals, forget_repository


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("url", nargs="?", metavar="URL", help="clone URL of the repository")
    parser.add_argument("--all", action="store_true", help="all cached tokens")


def execute(options: HelperOptions, arguments: argparse.Namespace) -> int:  # noqa: ARG001  # every command's shape
    """Drop them. Raises UsageError and NotARepositoryError."""
    if bool(arguments.url) == arguments.all:
        raise UsageError("give a repository's URL or --all")
    forget_refusals()
    if arguments.all:
        dropped = forget(lambda _: True)
        clear_all()
    else:
        wanted = parse_url(arguments.url)
        dropped = forget_repository(wanted)
    note(f"dropped {dropped} cached token{'' if dropped == 1 else 's'}")
    return 0
