"""Check step by step what a token needs, and say what to do about what is missing.

With the clone URL of a repository, the last step gets a token for it. Exit status 0 when every check passes.

Example:
  git-credential-bbjwt doctor https://bitbucket.org/acme/widgets
"""

import argparse
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from itertools import islice
from typing import NamedTuple, ParamSpec
from urllib.parse import urlsplit

from git_credential_bbjwt.bitbucket import assertion
from git_credential_bbjwt.commands.command_line import with_broker
from git_credential_bbjwt.core.budget import Budget
from git_credential_bbjwt.core.clone_urls import parse_url
from git_credential_bbjwt.core.failures import (
    HEADLESS_HINT,
    NEWEST_PAYLOAD,
    BadAnswerError,
    CredentialError,
    InstallationError,
    RefusedError,
)
from git_credential_bbjwt.core.options import HelperOptions
from git_credential_bbjwt.core.output import error, is_coloured, one_line
from git_credential_bbjwt.core.repository import Repository
from git_credential_bbjwt.getting.obtain import Asking, asking_for_person
from git_credential_bbjwt.git import configure, helper_lines
from git_credential_bbjwt.git.run import SECTIONS_FOR_PATHS, SETTINGS_BY_ENVIRONMENT, GitError, dotted, git_version
from git_credential_bbjwt.installations.catalogue import Catalogue
from git_credential_bbjwt.installations.installation import CLOUD_BASE_URL, Installation, SecretPlace
from git_credential_bbjwt.installations.sources import VARIABLES, read_sources
from git_credential_bbjwt.secret_stores.keyring_call import KeyringCall
from git_credential_bbjwt.secret_stores.keyring_protocol import Outcome
from git_credential_bbjwt.secret_stores.secret_store import shared_secret_of
from git_credential_bbjwt.tokens.cache import TokenCache
from git_credential_bbjwt.vendors.connect import look_up_workspace
from git_credential_bbjwt.vendors.session import Session, check_jwt_not_expired

_P = ParamSpec("_P")

# Older ones may work; none is tested.
_OLDEST_GIT = (2, 24)

# What newer ones brought that people may miss.
_ADDED_TO_GIT = (
    (SECTIONS_FOR_PATHS, "know configure --workspace"),
    (SETTINGS_BY_ENVIRONMENT, "know exec"),
    ((2, 40), "heed the end of a token that another helper keeps"),
    ((2, 46), "try again in the same command where a token was revoked"),
)


class Check(NamedTuple):
    """What one check found. ``remedy`` is empty where it passed."""

    name: str
    ok: bool
    detail: str
    remedy: str = ""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("url", nargs="?", metavar="URL", help="clone URL of a repository to get a token for")
    parser.add_argument("--json", action="store_true", help="print a JSON object for scripts")


def execute(options: HelperOptions, arguments: argparse.Namespace) -> int:
    """Check, and print each result as it is known. Raises NotARepositoryError for a URL that is none."""
    repository = _repository(arguments.url)
    budget = Budget(options.timeout)
    budget.watch(lambda spent: error(spent.what, spent.hint))
    show = _Printer()
    found = []
    for check in _all(options, repository, budget):
        found.append(check)
        if not arguments.json:
            show(check)
    budget.finish()
    ok = all(check.ok for check in found)
    if arguments.json:
        print(json.dumps({"ok": ok, "checks": [check._asdict() for check in found]}, indent=2, ensure_ascii=False))
    return 0 if ok else 1


def _repository(url: str | None) -> Repository | None:
    # The base URL alone is what error messages name: it asks for no repository.
    if not url or urlsplit(url).path in ("", "/"):
        return None
    return parse_url(url)


class _Printer:
    """Prints checks for a person: coloured in a terminal, plain in a log."""

    def __init__(self) -> None:
        self._good, self._bad, self._plain = ("\033[32m", "\033[31m", "\033[0m") if is_coloured(1) else ("", "", "")
        # The check marks are part of what is promised, whatever the locale.
        if hasattr(sys.stdout, "reconfigure"):
            sys.stdout.reconfigure(encoding="utf-8", errors="backslashreplace")

    def __call__(self, check: Check) -> None:
        mark = f"{self._good}✓" if check.ok else f"{self._bad}✗"
        print(f"{mark}{self._plain} {check.name}: {one_line(check.detail)}")
        if check.remedy:
            print(f"  → {one_line(check.remedy)}")
        sys.stdout.flush()


def _all(options: HelperOptions, repository: Repository | None, budget: Budget) -> Iterator[Check]:
    """All checks, in an order in which the first that fails is the cause of those after it."""
    git = _checked("git", _git)
    yield git
    yield from _variables()
    if git.ok:
        options = with_broker(
            options, CLOUD_BASE_URL if repository is None else f"https://{repository.host}/{repository.full_name}"
        )
    catalogue = Catalogue(read_sources(options))
    installations = _concerned(catalogue, repository)
    for url in _urls(catalogue, installations, repository) if git.ok else ():
        yield _checked("git configuration", _helpers, url)
    yield _checked("keyring", _keyring, installations)
    for problem in catalogue.problems():
        yield Check("installation", False, problem.what, problem.hint)
    for asked in catalogue.to_ask():
        yield Check(
            "installation", True, f"{asked.where} is asked about {', '.join(asked.hosts)} when a token is needed"
        )
    if not installations and not catalogue.problems() and not catalogue.to_ask():
        yield Check(
            "installation",
            False,
            "no installation is known on this machine",
            "git-credential-bbjwt register FILE",
        )
    for one in installations:
        yield _checked("installation", _installation, one)
    if len(installations) == _MOST:
        yield Check("installation", True, f"no more than {_MOST} are checked: name a repository's URL for its own")
    urls = [url for one in installations for url in (one.base_url, one.base_api_url)]
    skews: list[float] = []
    for url in dict.fromkeys(urls):
        yield _checked("network", _network, url, budget, skews)
    if skews:
        yield _clock(skews)
    reachable = bool(skews) or bool(catalogue.to_ask())
    for one in installations if reachable else ():
        if one.workspace_uuid and one.secret_place.is_registered:
            yield _checked("workspace", _workspace, one, budget)
    if repository is not None:
        if reachable:
            yield from _kept(repository, options, budget)
        yield from _token(repository, options)
        yield Check("lfs", True, f"if git-lfs is refused with 403, run first: {_lfs_cure(repository)}")
        yield Check("trace", True, "if a client hides what the helper says, as cargo does: BBJWT_TRACE=/FILE shows it")


# A vendor has thousands of installations. So many are a second or two of work, and show what is wrong with all.
_MOST = 20


def _concerned(catalogue: Catalogue, repository: Repository | None) -> list[Installation]:
    """The installations to be checked: those that may serve the repository, else the first ones."""
    if repository is None:
        return list(islice(catalogue, _MOST))
    return catalogue.naming(repository.workspace)


def _urls(catalogue: Catalogue, installations: list[Installation], repository: Repository | None) -> list[str]:
    """For which URLs git has to ask us: the repository's, or those of all workspaces there are installations for."""
    if repository is not None:
        return [f"https://{repository.host}/{repository.full_name}"]
    urls = [f"{one.base_url}/{workspace}" for one in installations for workspace in one.workspaces or ("",)]
    return list(dict.fromkeys(url.removesuffix("/") for url in urls)) or configure.known_urls(catalogue)


def _checked(name: str, check: Callable[_P, str], *args: _P.args, **kwargs: _P.kwargs) -> Check:
    """Turn what ``check`` returns or raises into a result."""
    try:
        return Check(name, True, check(*args, **kwargs))
    except CredentialError as problem:
        return Check(name, False, problem.what, problem.hint)


def _variables() -> Iterator[Check]:
    """Variables of ours that are empty, and so do nothing: a CI system's slip, most often."""
    for name in VARIABLES:
        if os.environ.get(name) == "":
            yield Check("environment", True, f"{name} is empty, which counts as not set")


def _git() -> str:
    version = git_version()
    shown = dotted(version)
    if version < _OLDEST_GIT:
        needed = dotted(_OLDEST_GIT)
        raise GitError(f"version {shown} is too old", f"install git {needed} or newer")
    missing = [f"{dotted(since)} would {what}" for since, what in _ADDED_TO_GIT if version < since]
    return f"version {shown}" + (f" ({', '.join(missing)})" if missing else "")


def _helpers(url: str) -> str:
    remedy = "run: git-credential-bbjwt configure"
    helpers = helper_lines.helpers_for(url)
    ours = [position for position, helper in enumerate(helpers) if helper.is_this_one]
    if not ours:
        raise GitError(f"git does not ask this helper for {url}", remedy)
    before = helpers[: ours[0]]
    if before:
        names = ", ".join(f"{helper.value} ({helper.origin})" for helper in before)
        raise GitError(
            f"git asks {names} before this helper for {url}: it may answer first, or keep tokens that have expired",
            "run: git-credential-bbjwt configure --exclusive",
        )
    if not helper_lines.use_http_path(url):
        raise GitError(f"git does not say which repository it wants of {url}: useHttpPath is off", remedy)
    named = helpers[ours[0]].program
    if named == "bbjwt" and shutil.which("git-credential-bbjwt") is None:
        raise GitError("git's configuration names bbjwt, which is not on PATH", remedy)
    if helpers[ours[0]].is_dead:
        raise GitError(f"git's configuration names {named}, which is not there", remedy)
    return f"asks this helper for {url}, with the path"


def _keyring(installations: list[Installation]) -> str:
    needed = any(one.secret_place is SecretPlace.KEYRING for one in installations)
    reply = KeyringCall("describe", "").reply()
    if reply.is_ok:
        return reply.backend
    reason = reply.reason or reply.outcome.value
    if not needed:
        return f"not available, not needed ({reason})"
    hint = "unlock it" if reply.outcome is Outcome.LOCKED else HEADLESS_HINT
    raise InstallationError(f"{reply.backend}: {reason}", hint)


def _installation(one: Installation) -> str:
    name = f"app {one.app_key or '(of the JWT)'} on {', '.join(one.workspaces) or 'any workspace'} ({one.where})"
    if one.is_exposed:
        raise InstallationError(f"{name}: others on this machine can read it", f"run: chmod 600 {one.where}")
    if one.jwt:
        check_jwt_not_expired(one)
        return f"{name}: a JWT signed elsewhere"
    shared_secret_of(one)()
    return f"{name}: its secret is {one.secret_place.described}"


def _network(url: str, budget: Budget, skews: list[float]) -> str:
    # urllib3 takes as long to import as all else here together: not for `--help`.
    from git_credential_bbjwt.git.http_settings import HttpSettings
    from git_credential_bbjwt.network.connections import Connections

    started = time.monotonic()
    response = Connections(budget, HttpSettings()).take(url).request("GET", "/", dict)
    if response.date is not None:
        skews.append(response.date - time.time())
    return f"{url} answers ({time.monotonic() - started:.2f} s)"


def _clock(skews: list[float]) -> Check:
    worst = max(skews, key=abs)
    if abs(worst) <= assertion.CLOCK_TOLERANCE:
        return Check("clock", True, f"within {assertion.CLOCK_TOLERANCE} s of Bitbucket's")
    side = "behind" if worst > 0 else "ahead of"
    return Check("clock", False, f"{abs(worst):.0f} s {side} Bitbucket's", "set the clock, for example with NTP")


def _workspace(one: Installation, budget: Budget) -> str:
    """Whether the workspace still has the slug that it is registered with."""
    try:
        slug = look_up_workspace(one, Session(budget, TokenCache.open(create=False), for_person=True))
    except (RefusedError, BadAnswerError) as refusal:
        return f"whether {one.workspaces[0]} is still its slug, Bitbucket does not tell: {refusal.what}"
    if slug not in one.workspaces:
        raise InstallationError(
            f"the workspace registered as {', '.join(one.workspaces)} has the slug {slug} now",
            f"{NEWEST_PAYLOAD}, or the same one with --workspace {slug}; and update the remotes' URLs",
        )
    return f"{slug} is still its slug"


def _kept(repository: Repository, options: HelperOptions, budget: Budget) -> Iterator[Check]:
    """Whether the kept token still opens the repository: who never erases one goes on failing with a revoked one."""
    record = TokenCache.open(create=False).slot(repository, options.scope, options.app).find()
    if record is None or not record.is_in_time():
        return
    from git_credential_bbjwt.bitbucket.api import check_token
    from git_credential_bbjwt.git.http_settings import HttpSettings
    from git_credential_bbjwt.network.connections import Connections

    origin = Connections(budget, HttpSettings()).take(f"https://{repository.host}", f"/{repository.full_name}.git")
    url = f"https://{repository.host}/{repository.full_name}"
    try:
        check_token(origin, repository, record.username, record.token)
    except CredentialError as problem:
        yield Check("kept token", False, problem.what, problem.hint.replace(" URL", f" {url}"))
        return
    yield Check("kept token", True, f"it opens {repository.full_name}")


def _lfs_cure(repository: Repository) -> str:
    url = f"https://{repository.host}/{repository.full_name}.git/info/lfs"
    return f"git config lfs.{url}.access basic"


def _token(repository: Repository, options: HelperOptions) -> Iterator[Check]:
    with asking_for_person(options.replaced(token_store="none")) as person:
        yield _checked("token", _minted, repository, options, person)
        if person.session.announcement is not None:
            yield Check("announcement", True, str(person.session.announcement))


def _minted(repository: Repository, options: HelperOptions, person: Asking) -> str:
    started = time.monotonic()
    token = person.get(repository)
    took = time.monotonic() - started
    ends = (
        "an end that is not known"
        if token.expires is None
        else time.strftime("%H:%M:%S UTC", time.gmtime(token.expires))
    )
    if not token.uuid:
        return f"the broker gives one for {repository.full_name} in {took:.2f} s, until {ends}"
    return f"Bitbucket gives one for {repository.full_name} ({token.uuid}), scope {options.scope}, until {ends}"
