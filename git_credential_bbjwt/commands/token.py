"""Print a token for one repository, to hand to another machine.

The token reads that repository, for an hour or two, and nothing else. It is printed to standard output and stands
nowhere else but in this user's token cache.

Example:
  git-credential-bbjwt token https://bitbucket.org/acme/widgets --format json
"""

import argparse
import json
from base64 import b64encode
from collections.abc import Callable
from typing import NamedTuple
from urllib.parse import quote

from git_credential_bbjwt import minting
from git_credential_bbjwt.git.answer import USERNAME
from git_credential_bbjwt.minting import Grant
from git_credential_bbjwt.options import DEFAULT_SCOPE, HelperOptions, checked_scope
from git_credential_bbjwt.repository import Repository, parse_url


class Handed(NamedTuple):
    """What is handed on: a token, and for what it is."""

    repository: Repository
    scope: str
    grant: Grant


def _token(handed: Handed) -> str:
    return handed.grant.token


def _json(handed: Handed) -> str:
    fields = {
        "username": USERNAME,
        "token": handed.grant.token,
        "expires_at": handed.grant.expires,
        "scope": handed.scope,
        "repository": handed.repository.full_name,
        "uuid": handed.grant.uuid,
    }
    return json.dumps(fields)


def _header(handed: Handed) -> str:
    return "Authorization: Basic " + b64encode(f"{USERNAME}:{handed.grant.token}".encode()).decode()


def _url(handed: Handed) -> str:
    userinfo = f"{USERNAME}:{quote(handed.grant.token, safe='')}"
    return f"https://{userinfo}@{handed.repository.host}/{quote(handed.repository.full_name)}.git"


#: How a token can be printed. ``expires_at`` of ``json`` is a Unix time.
FORMATS: dict[str, Callable[[Handed], str]] = {
    "token": _token,
    "json": _json,
    "header": _header,
    "url": _url,
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("url", metavar="URL", help="clone URL of the repository")
    parser.add_argument("--scope", metavar="SCOPE", help=f"scope of the token (default: {DEFAULT_SCOPE})")
    parser.add_argument("--app", metavar="KEY", help="app key, where several apps are installed on the workspace")
    parser.add_argument("--format", choices=tuple(FORMATS), default="token", help="how to print it (default: token)")


def run(options: HelperOptions, arguments: argparse.Namespace) -> int:
    """Print it. Raises UsageError, NotARepositoryError, CredentialError."""
    repository = parse_url(arguments.url)
    if arguments.scope is not None:
        options.scope = checked_scope(arguments.scope)
    options.app = arguments.app or options.app
    _, grant = minting.get_for_person(repository, options)
    print(FORMATS[arguments.format](Handed(repository, options.scope, grant)))
    return 0
