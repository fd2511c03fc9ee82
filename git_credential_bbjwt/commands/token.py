"""Print a token for one repository, to hand to another machine.

A Connect app's token reads that repository only, for an hour or two. An OAuth
consumer's token opens every repository of the workspace. Several URLs get one
line each, in their order. The line of a URL without a token is empty, and the
exit status is 1.

Examples:
  git-credential-bbjwt token https://bitbucket.org/acme/widgets --format json
  git-credential-bbjwt token - < urls
"""

import argparse
import json
import sys
from base64 import b64encode
from collections.abc import Callable
from functools import partial
from typing import NamedTuple
from urllib.parse import quote

from git_credential_bbjwt.commands.command_line import with_broker
from git_credential_bbjwt.core.clone_urls import parse_url
from git_credential_bbjwt.core.failures import CredentialError, RefusedError
from git_credential_bbjwt.core.options import HelperOptions
from git_credential_bbjwt.core.output import error
from git_credential_bbjwt.core.repository import Repository
from git_credential_bbjwt.getting.asking import Asking, asking_for_person
from git_credential_bbjwt.getting.obtain import obtain_for_person, token_for_person
from git_credential_bbjwt.tokens.token import Token


class Handed(NamedTuple):
    """A token to hand on, with its repository and scope."""

    repository: Repository
    scope: str
    token: Token


def _token(handed: Handed) -> str:
    return handed.token.value


def _json(handed: Handed) -> str:
    fields = {
        "username": handed.token.username,
        "token": handed.token.value,
        "expires_at": handed.token.expires,
        # A broker does not say which scope its tokens have.
        "scope": handed.token.granted or (handed.scope if handed.token.uuid else None),
        # A token that opens the whole workspace is not a token for one repository.
        "repository": None if handed.token.opens_workspace else handed.repository.full_name,
        "uuid": handed.token.uuid,
    }
    return json.dumps(fields)


def _header(handed: Handed) -> str:
    return "Authorization: Basic " + b64encode(f"{handed.token.username}:{handed.token.value}".encode()).decode()


def _bearer(handed: Handed) -> str:
    return f"Authorization: Bearer {handed.token.value}"


def _url(handed: Handed) -> str:
    userinfo = f"{handed.token.username}:{quote(handed.token.value, safe='')}"
    return f"https://{userinfo}@{handed.repository.host}/{quote(handed.repository.full_name)}.git"


#: How a token can be printed. ``expires_at`` of ``json`` is a Unix time.
FORMATS: dict[str, Callable[[Handed], str]] = {
    "token": _token,
    "json": _json,
    "header": _header,
    "bearer": _bearer,
    "url": _url,
}


#: Tokens that are requested side by side; each has two connections. At a round trip of 80 ms 200 tokens take less than
#: 2 s in this way, and 2.6 s with half as many.
SIDE_BY_SIDE = 32


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("url", nargs="+", metavar="URL", help="clone URL of a repository; - reads them, one per line")
    parser.add_argument("--format", choices=tuple(FORMATS), default="token", help="how to print it (default: token)")


def execute(options: HelperOptions, arguments: argparse.Namespace) -> int:
    """Print them. Raises UsageError, NotARepositoryError, CredentialError."""
    urls = [url for word in arguments.url for url in (_read_urls() if word == "-" else [word])]
    show = FORMATS[arguments.format]
    if arguments.url == urls[:1]:
        repository = parse_url(urls[0])
        options = with_broker(options, urls[0])
        print(show(Handed(repository, options.scope, token_for_person(repository, options))))
        return 0
    return _Many(urls, options, show).print()


def _read_urls() -> list[str]:
    return [line.strip() for line in sys.stdin if line.strip()]


class _Many:
    """Tokens for several URLs: requested side by side, each printed as soon as all before it are."""

    def __init__(self, urls: list[str], options: HelperOptions, show: Callable[[Handed], str]) -> None:
        self._urls = urls
        # Git's configuration names a broker for a host, so the first URL's broker is that of all.
        self._options = with_broker(options, urls[0]) if urls else options
        self._show = show
        self._stopped_by: RefusedError | None = None

    def print(self) -> int:
        """Print a line for each URL, which is empty if there is no token; return the exit status."""
        from concurrent.futures import ThreadPoolExecutor  # One token needs none, and it is slow to load.

        from git_credential_bbjwt.system.shell import end_children_on_signals

        end_children_on_signals()  # The threads below cannot set this.
        done = 0
        with asking_for_person(self._options) as person, ThreadPoolExecutor(SIDE_BY_SIDE) as workers:
            for line in workers.map(partial(self._line, person), range(len(self._urls))):
                print(line, flush=True)
                done += line != ""
                person.budget.progress = f"{done} of {len(self._urls)} tokens were printed"
        if self._stopped_by is not None:
            raise CredentialError(
                f"stopped after {done} of {len(self._urls)} tokens: {self._stopped_by.what}",
                "run it for the others in an hour, because Bitbucket allows about 1,000 look-ups per hour",
            )
        return 0 if done == len(self._urls) else 1

    def _line(self, person: Asking, number: int) -> str:
        if self._stopped_by is not None:
            return ""
        try:
            repository = parse_url(self._urls[number])
            return self._show(Handed(repository, self._options.scope, obtain_for_person(person, repository)))
        except CredentialError as problem:
            if isinstance(problem, RefusedError) and problem.status == _TOO_MANY:
                self._stopped_by = problem
                return ""
            # The URL is not repeated: it may hold a password.
            error(f"URL {number + 1}: {problem.what}", problem.hint)
            return ""


_TOO_MANY = 429
