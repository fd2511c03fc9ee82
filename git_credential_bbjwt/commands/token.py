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
from git_credential_bbjwt.commands import find_broker
from git_credential_bbjwt.errors import UsageError
from git_credential_bbjwt.grants import Grant
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
        "username": handed.grant.username,
        "token": handed.grant.token,
        "expires_at": handed.grant.expires,
        # A broker does not say of which scope its tokens are.
        "scope": handed.scope if handed.grant.uuid else None,
        "repository": handed.repository.full_name,
        "uuid": handed.grant.uuid or None,
    }
    return json.dumps(fields)


def _header(handed: Handed) -> str:
    return "Authorization: Basic " + b64encode(f"{handed.grant.username}:{handed.grant.token}".encode()).decode()


def _bearer(handed: Handed) -> str:
    return f"Authorization: Bearer {handed.grant.token}"


def _url(handed: Handed) -> str:
    userinfo = f"{handed.grant.username}:{quote(handed.grant.token, safe='')}"
    return f"https://{userinfo}@{handed.repository.host}/{quote(handed.repository.full_name)}.git"


#: How a token can be printed. ``expires_at`` of ``json`` is a Unix time.
FORMATS: dict[str, Callable[[Handed], str]] = {
    "token": _token,
    "json": _json,
    "header": _header,
    "bearer": _bearer,
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
    find_broker(options, arguments.url)
    if arguments.scope is not None:
        if options.broker is not None:
            raise UsageError("--scope does not go with --broker: the broker's side has the scope")
        options.scope = checked_scope(arguments.scope)
    options.app = arguments.app or options.app
    grant = minting.get_for_person(repository, options)
    print(FORMATS[arguments.format](Handed(repository, options.scope, grant)))
    return 0
