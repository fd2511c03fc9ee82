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
from git_credential_bbjwt.commands.checks.check import Check, Subject, failed
from git_credential_bbjwt.commands.checks.id_token import id_tokens
from git_credential_bbjwt.commands.command_line import with_broker
from git_credential_bbjwt.core.failures import BudgetSpentError, CredentialError
from git_credential_bbjwt.core.files import APP_NAME
from git_credential_bbjwt.core.options import HelperOptions
from git_credential_bbjwt.core.output import is_coloured, pasteable
from git_credential_bbjwt.core.sources import read_sources
from git_credential_bbjwt.git.clone_urls import parse_url
from git_credential_bbjwt.installations.catalogue import Catalogue
from git_credential_bbjwt.installations.installation import CLOUD_BASE_URL
from git_credential_bbjwt.system.budget import Budget
from git_credential_bbjwt.tokens.cache import TokenCache
from git_credential_bbjwt.vendors.session import Session

_CHECKING = "checking this machine"

# The marks of what passed, failed, or is a note, each with its colour on a terminal.
_MARKS = {True: ("\033[32m", "✓"), False: ("\033[31m", "✗"), None: ("\033[2m", "–")}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "url", nargs="?", default="", metavar="URL", help="clone URL of a repository to get a token for"
    )
    parser.add_argument("--json", action="store_true", help="print a JSON object for scripts")


def execute(options: HelperOptions, arguments: argparse.Namespace) -> int:
    """Check, and print each result as it is known. Raises NotARepositoryError for a URL that names none."""
    url = arguments.url
    if "://" in url and not url.partition("://")[2].partition("/")[2]:
        url = ""  # Error messages name the base URL. A person may paste it, but it names no repository.
    if url:
        parse_url(url)
    # The contract promises the marks in every locale.
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(encoding="utf-8", errors="backslashreplace")
    report = _Report(as_json=arguments.json)
    budget = Budget(options.timeout)
    budget.doing = _CHECKING
    budget.watch(report.end)
    spent = None
    for check in _all(options, url, budget):
        report.add(check)
        try:
            budget.remaining()
        except BudgetSpentError as problem:
            spent = problem
            break
    budget.finish()
    return report.end(spent)


class _Report:
    """The results, each printed as it is known, or all at the end as JSON."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._found: list[Check] = []

    def add(self, check: Check) -> None:
        """Add a result. Each problem is said once: the first check that meets it is the nearest to its cause."""
        check = check._replace(remedy=pasteable(check.remedy))
        if any(check == one or (check.ok is False and check[1:3] == one[1:3]) for one in self._found):
            return
        self._found.append(check)
        if not self._as_json:
            colour, mark = _MARKS[check.ok]
            print(f"{colour}{mark}\033[0m" if is_coloured(1) else mark, f"{check.name}: {check.detail}")
            if check.remedy:
                print(f"  → {check.remedy}")
            sys.stdout.flush()

    def end(self, spent: BudgetSpentError | None = None) -> int:
        """Print what sums up, with the error of a budget that is ``spent``; return the exit status."""
        if spent is not None:
            self.add(failed("time", spent.what, f"allow more: {APP_NAME} --timeout 120 doctor URL"))
        counted = [check for check in self._found if check.ok is not None]
        wrong = [check.name for check in counted if not check.ok]
        summary = f"{len(counted)} of {len(counted)} passed"
        if wrong:
            summary = f"{len(wrong)} of {len(counted)} failed: {', '.join(dict.fromkeys(wrong))}"
        if self._as_json:
            checks = [check._asdict() for check in self._found]
            print(json.dumps({"ok": not wrong, "checks": checks, "summary": summary}, indent=2, ensure_ascii=False))
        else:
            print(summary)
        sys.stdout.flush()
        return 1 if wrong else 0


def _all(options: HelperOptions, url: str, budget: Budget) -> Iterator[Check]:
    """Make all checks, in an order in which the first that fails is the cause of those after it."""
    repository = parse_url(url) if url else None
    yield from git_asks.python()
    has_git = yield from git_asks.version()
    yield from git_asks.variables()
    if has_git:
        asked_for = repository.url if repository is not None else CLOUD_BASE_URL
        budget.doing = "waiting for git config"
        try:
            options = with_broker(git_asks.options_of_line(asked_for, options), asked_for)
        except CredentialError as problem:
            yield failed("git configuration", problem.what, problem.hint)
        budget.doing = _CHECKING
    catalogue = Catalogue(read_sources(options))
    concerned = installations.concerned(catalogue, repository)
    session = Session(budget, TokenCache.open(create=False), for_person=True)
    subject = Subject(repository, options, catalogue, concerned, session)
    if has_git:
        try:
            if repository is not None:
                yield from git_sends.check(url, repository)
            yield from git_asks.check(subject)
        except CredentialError as problem:
            yield failed("git configuration", problem.what, problem.hint)
    yield from installations.sources(subject)
    yield from id_tokens(catalogue, budget)
    readable = yield from installations.secrets(concerned)
    # Requests need modules that take as long to import as all others here: not for `--help`.
    from git_credential_bbjwt.commands.checks import bitbucket

    yield from bitbucket.check(subject, readable)
