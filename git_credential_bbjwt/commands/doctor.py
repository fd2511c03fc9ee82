"""Check step by step what a token needs, and say what to do about it.

With the clone URL of a repository, doctor also checks what git sends for it,
and gets a token. Each line begins with ✓ (passed), ✗ (failed, with the remedy
below) or – (a note). Exit status 0 if nothing failed.

Example:
  git-credential-bbjwt doctor https://bitbucket.org/acme/widgets
"""

import argparse
import json
import sys
from collections.abc import Iterator

from git_credential_bbjwt.commands.checks import git_asks, git_sends, installations
from git_credential_bbjwt.commands.checks.check import Check, failed
from git_credential_bbjwt.commands.checks.id_token import id_tokens
from git_credential_bbjwt.commands.command_line import with_broker
from git_credential_bbjwt.core.clone_urls import parse_url
from git_credential_bbjwt.core.failures import BudgetSpentError, CredentialError
from git_credential_bbjwt.core.options import HelperOptions
from git_credential_bbjwt.core.output import is_coloured
from git_credential_bbjwt.core.places import APP_NAME
from git_credential_bbjwt.core.repository import Repository
from git_credential_bbjwt.git.entries import known_urls
from git_credential_bbjwt.installations.catalogue import Catalogue
from git_credential_bbjwt.installations.installation import CLOUD_BASE_URL, Installation
from git_credential_bbjwt.installations.sources import read_sources
from git_credential_bbjwt.system.budget import Budget

_MARKS = {True: "✓", False: "✗", None: "–"}
_COLOURS = {True: "\033[32m", False: "\033[31m", None: "\033[2m"}
_PLAIN = "\033[0m"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("url", nargs="?", metavar="URL", help="clone URL of a repository to get a token for")
    parser.add_argument("--json", action="store_true", help="print a JSON object for scripts")


def execute(options: HelperOptions, arguments: argparse.Namespace) -> int:
    """Check, and print each result as it is known. Raises NotARepositoryError for a URL that names none."""
    repository = _repository(arguments.url)
    # The contract promises the marks in every locale.
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(encoding="utf-8", errors="backslashreplace")
    report = _Report(as_json=arguments.json)
    budget = Budget(options.timeout)
    budget.watch(report.give_up)
    for check in _all(options, arguments.url or "", repository, budget):
        report.add(check)
        try:
            budget.remaining()
        except BudgetSpentError as spent:
            report.add(_time_is_up(spent))
            break
    budget.finish()
    return report.end()


class _Report:
    """The results, each printed as it is known, or all at the end as JSON."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._found: list[Check] = []

    def add(self, check: Check) -> None:
        """Add a result. Each problem is said once: the first check that meets it is the nearest to its cause."""
        if any(check == one or (check.ok is False and check[1:3] == one[1:3]) for one in self._found):
            return
        self._found.append(check)
        if not self._as_json:
            _show(check)

    def end(self) -> int:
        """Print what sums up; return the exit status."""
        failed_ones = [check for check in self._found if check.ok is False]
        if self._as_json:
            checks = [check._asdict() for check in self._found]
            report = {"ok": not failed_ones, "checks": checks, "summary": _summary(self._found)}
            print(json.dumps(report, indent=2, ensure_ascii=False))
        else:
            print(_summary(self._found))
        sys.stdout.flush()
        return 1 if failed_ones else 0

    def give_up(self, spent: BudgetSpentError) -> None:
        """End the report of a call whose budget is spent."""
        self.add(_time_is_up(spent))
        self.end()


def _time_is_up(spent: BudgetSpentError) -> Check:
    return failed("time", spent.what, f"allow more: {APP_NAME} --timeout 120 doctor URL")


def _repository(url: str | None) -> Repository | None:
    # The base URL alone is what error messages name: it asks for no repository.
    if not url or ("://" in url and url.partition("://")[2].partition("/")[2] == ""):
        return None
    return parse_url(url)


def _show(check: Check) -> None:
    colour, plain = (_COLOURS[check.ok], _PLAIN) if is_coloured(1) else ("", "")
    print(f"{colour}{_MARKS[check.ok]}{plain} {check.name}: {check.detail}")
    if check.remedy:
        print(f"  → {check.remedy}")
    sys.stdout.flush()


def _summary(found: list[Check]) -> str:
    counted = [check for check in found if check.ok is not None]
    failures = list(dict.fromkeys(check.name for check in counted if not check.ok))
    if not failures:
        return f"{len(counted)} of {len(counted)} passed"
    return f"{sum(not check.ok for check in counted)} of {len(counted)} failed: {', '.join(failures)}"


def _all(options: HelperOptions, text: str, repository: Repository | None, budget: Budget) -> Iterator[Check]:
    """Make all checks, in an order in which the first that fails is the cause of those after it."""
    git = list(git_asks.version())
    yield from git
    yield from git_asks.variables()
    has_git = git[0].ok is True
    url = CLOUD_BASE_URL if repository is None else f"https://{repository.host}/{repository.full_name}"
    if has_git:
        try:
            options = with_broker(git_asks.options_of_line(url, options), url)
        except CredentialError as problem:
            yield failed("git configuration", problem.what, problem.hint)
    catalogue = Catalogue(read_sources(options))
    concerned = installations.concerned(catalogue, repository)
    if has_git:
        yield from _git(catalogue, concerned, text, repository)
    yield from installations.sources(catalogue, concerned, repository)
    yield from id_tokens(catalogue, budget)
    readable: list[Installation] = []
    yield from installations.secrets(concerned, readable)
    yield from installations.rotation(concerned)
    yield from _bitbucket(options, catalogue, readable, repository, budget)


def _git(
    catalogue: Catalogue, concerned: list[Installation], text: str, repository: Repository | None
) -> Iterator[Check]:
    is_injected = any(not one.secret_place.is_registered for one in concerned)
    try:
        if repository is not None:
            yield from git_sends.check(text, repository)
        for url in _urls(catalogue, concerned, repository):
            yield from git_asks.asks(url, is_injected=is_injected)
        for one in concerned if repository is not None else ():
            for workspace in one.workspaces:
                yield from git_asks.proactive(f"{one.base_url}/{workspace}")
    except CredentialError as problem:
        yield failed("git configuration", problem.what, problem.hint)


def _urls(catalogue: Catalogue, concerned: list[Installation], repository: Repository | None) -> list[str]:
    """Return the URLs for which git has to ask this helper: the repository's, or those of all workspaces."""
    if repository is not None:
        return [f"https://{repository.host}/{repository.full_name}"]
    urls = [f"{one.base_url}/{workspace}" for one in concerned for workspace in one.workspaces or ("",)]
    return list(dict.fromkeys(url.removesuffix("/") for url in urls)) or known_urls(catalogue)


def _bitbucket(
    options: HelperOptions,
    catalogue: Catalogue,
    readable: list[Installation],
    repository: Repository | None,
    budget: Budget,
) -> Iterator[Check]:
    asked = [one for one in catalogue.to_ask() if repository is None or repository.host in one.hosts]
    # Requests need modules that take as long to import as all others here: not for `--help`.
    from git_credential_bbjwt.commands.checks import bitbucket
    from git_credential_bbjwt.commands.checks import repository as repository_checks

    yield from repository_checks.cache(options)
    requests = bitbucket.Bitbucket(budget, options.scope)
    yield from requests.hosts(readable)
    yield from requests.secrets(readable, is_minting=repository is not None)
    if repository is not None and (asked or requests.reached):
        yield from repository_checks.cached_token(repository, options, budget)
        yield from repository_checks.new_token(repository, options)
    yield from requests.end_of_connect(readable)
