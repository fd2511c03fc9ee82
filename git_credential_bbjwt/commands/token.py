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
from urllib.parse import quote

from git_credential_bbjwt.commands.command_line import with_broker
from git_credential_bbjwt.core.failures import CredentialError, RefusedError
from git_credential_bbjwt.core.options import HelperOptions
from git_credential_bbjwt.core.output import error
from git_credential_bbjwt.core.repository import Repository
from git_credential_bbjwt.getting.call import call_for_person
from git_credential_bbjwt.getting.obtain import obtain_for_person, token_for_person
from git_credential_bbjwt.git.clone_urls import parse_url
from git_credential_bbjwt.tokens.token import Token

#: Tokens that are requested side by side; each has two connections. At a round trip of 80 ms 200 tokens take less than
#: 2 s in this way, and 2.6 s with half as many.
SIDE_BY_SIDE = 32


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("url", nargs="+", metavar="URL", help="clone URL of a repository; - reads them, one per line")
    formats = ("token", "json", "header", "bearer", "url")
    parser.add_argument("--format", choices=formats, default="token", help="how to print it (default: token)")


def execute(options: HelperOptions, arguments: argparse.Namespace) -> int:
    """Print them. Raises UsageError, NotARepositoryError, CredentialError."""
    read = (line.strip() for line in sys.stdin if line.strip())
    urls = [url for word in arguments.url for url in (read if word == "-" else [word])]
    if arguments.url != urls[:1]:
        return _print_many(urls, options, arguments.format)
    repository = parse_url(urls[0])
    options = with_broker(options, urls[0])
    print(_formatted(token_for_person(repository, options), repository, options.scope, arguments.format))
    return 0


def _formatted(token: Token, repository: Repository, scope: str, how: str) -> str:
    """Return the token for ``repository`` as ``--format`` names it. ``expires_at`` of ``json`` is a Unix time."""
    match how:
        case "json":
            fields = {
                "username": token.username,
                "token": token.value,
                "expires_at": token.expires,
                # A broker does not say which scope its tokens have.
                "scope": token.granted or (scope if token.uuid else None),
                # A token that opens the whole workspace is not a token for one repository.
                "repository": None if token.opens_workspace else repository.full_name,
                "uuid": token.uuid,
            }
            return json.dumps(fields)
        case "header":
            return "Authorization: Basic " + b64encode(f"{token.username}:{token.value}".encode()).decode()
        case "bearer":
            return f"Authorization: Bearer {token.value}"
        case "url":
            user = f"{token.username}:{quote(token.value, safe='')}"
            return f"https://{user}@{repository.host}/{quote(repository.full_name)}.git"
        case _:
            return token.value


def _print_many(urls: list[str], options: HelperOptions, how: str) -> int:
    """Print a line for each URL, which is empty if there is no token; return the exit status.

    The tokens are requested side by side, and each is printed as soon as all before it are.
    """
    from concurrent.futures import ThreadPoolExecutor  # One token needs none, and it is slow to load.

    from git_credential_bbjwt.system.shell import end_children_on_signals

    # Git's configuration names a broker for a host, so the first URL's broker is that of all.
    options = with_broker(options, urls[0]) if urls else options
    end_children_on_signals()  # The threads below cannot set this.
    stopped_by: RefusedError | None = None
    done = 0
    with call_for_person(options) as person, ThreadPoolExecutor(SIDE_BY_SIDE) as workers:

        def line(number: int, url: str) -> str:
            nonlocal stopped_by
            if stopped_by is not None:
                return ""
            try:
                repository = parse_url(url)
                return _formatted(obtain_for_person(person, repository), repository, options.scope, how)
            except CredentialError as problem:
                if isinstance(problem, RefusedError) and problem.status == 429:
                    stopped_by = problem
                else:  # The URL is not repeated: it may hold a password.
                    error(f"URL {number}: {problem.what}", problem.hint)
                return ""

        for printed in workers.map(line, range(1, len(urls) + 1), urls):
            print(printed, flush=True)
            done += printed != ""
            person.budget.progress = f"{done} of {len(urls)} tokens were printed"
    if stopped_by is not None:
        raise CredentialError(
            f"stopped after {done} of {len(urls)} tokens: {stopped_by.what}",
            "run it for the others in an hour, because Bitbucket allows about 1,000 look-ups per hour",
        )
    return 0 if done == len(urls) else 1
