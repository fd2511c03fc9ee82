"""Drop cached tokens: those of one repository, or all. Registered secrets stay."""

import argparse

from git_credential_bbjwt import diagnostics, minting
from git_credential_bbjwt.errors import UsageError
from git_credential_bbjwt.options import HelperOptions
from git_credential_bbjwt.repository import parse_url
from git_credential_bbjwt.token_cache import TokenCache


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("url", nargs="?", metavar="URL", help="clone URL of the repository")
    parser.add_argument("--all", action="store_true", help="every cached token")


def run(options: HelperOptions, arguments: argparse.Namespace) -> int:  # noqa: ARG001  # every command's shape
    """Drop them. Raises UsageError and NotARepositoryError."""
    if bool(arguments.url) == arguments.all:
        raise UsageError("forget needs one of: the URL of a repository, --all")
    wanted = parse_url(arguments.url) if arguments.url else None
    cache = TokenCache(create=False)
    dropped = 0
    for record in cache.records():
        found = record.repository
        if wanted is None or (found.host, found.full_name) == (wanted.host, wanted.full_name):
            minting.forget(cache, record)
            dropped += 1
    if wanted is None:
        cache.clear()
    diagnostics.note(f"dropped {dropped} cached token{'' if dropped == 1 else 's'}")
    return 0
