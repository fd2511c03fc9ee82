"""Bitbucket itself: its hosts, the clock, whether it accepts each secret, the end of Connect."""

import time
from collections.abc import Generator, Iterator

from git_credential_bbjwt.bitbucket.assertion import CLOCK_TOLERANCE
from git_credential_bbjwt.bitbucket.connect_end import day_of_the_end, days_left
from git_credential_bbjwt.bitbucket.consumer import check_scope
from git_credential_bbjwt.commands.checks import repository
from git_credential_bbjwt.commands.checks.check import Check, Subject, checked, failed, note, passed
from git_credential_bbjwt.commands.checks.installations import described
from git_credential_bbjwt.core.failures import NEWEST_PAYLOAD, CredentialError, RefusedError
from git_credential_bbjwt.core.files import APP_NAME
from git_credential_bbjwt.getting.changeover import ends_connect
from git_credential_bbjwt.installations.installation import Installation
from git_credential_bbjwt.vendors.connect import look_up_workspace
from git_credential_bbjwt.vendors.session import Session


def check(subject: Subject, installations: list[Installation]) -> Iterator[Check]:
    """Make the checks that send requests, with the ``installations`` whose secrets can be read."""
    yield from repository.cache(subject.options)
    reached = yield from _hosts(subject.session, installations)
    apps = [one for one in installations if not one.is_consumer]
    is_refused, is_accepted = False, False
    for one in installations:
        if one.is_consumer and one.base_url in reached:
            yield checked("secret", _consumer, one, subject)
        elif not one.is_consumer and not one.jwt and reached.issuperset((one.base_url, one.base_api_url)):
            successor = next((other for other in installations if _takes_over(other, one)), None)
            found, status = _connect(one, subject.session, successor)
            is_refused, is_accepted = is_refused or status in (401, 410), is_accepted or status == 200
            if found.name == "secret" and found.ok is False and subject.repository is None:
                found = found._replace(detail=f"{described(one)}: {found.detail}")
            # A mint that follows says more about what this leaves open.
            if found.ok is not None or successor is not None or subject.repository is None:
                yield found
    if subject.repository is not None and (subject.asked or reached):
        yield from repository.cached_token(subject.repository, subject)
        yield from repository.new_token(subject.repository, subject.options)
    if apps and (is_accepted or not is_refused):
        yield _end_of_connect(has_consumer=len(apps) < len(installations))


def _hosts(session: Session, installations: list[Installation]) -> Generator[Check, None, set[str]]:
    """Check that the hosts of all installations answer, and this machine's clock; return the URLs that answered."""
    reached: set[str] = set()
    skews = []
    urls = [url for one in installations for url in (one.base_url, one.base_api_url)]
    for url in dict.fromkeys(filter(None, urls)):
        started = time.monotonic()
        try:
            response = session.connections().take(url).request("GET", "/", dict)
        except CredentialError as problem:
            yield failed("network", problem.what, problem.hint)
            continue
        reached.add(url)
        if response.date is not None:
            skews.append(response.date - time.time())
        yield passed("network", f"{url} answers ({time.monotonic() - started:.2f} s)")
    worst = max(skews, key=abs, default=0.0)
    if abs(worst) > CLOCK_TOLERANCE:
        what = f"{abs(worst):.0f} s {'behind' if worst > 0 else 'ahead of'} Bitbucket's"
        yield failed("clock", what, "set it, for example: timedatectl set-ntp true")
    elif skews:
        yield passed("clock", f"within {CLOCK_TOLERANCE} s of Bitbucket's")
    return reached


def _consumer(one: Installation, subject: Subject) -> str:
    token = subject.session.consumer_token(one, None)
    check_scope(token.scope, subject.options.scope)
    return f"Bitbucket returned a token for the {one.name}, scope {token.scope}"


def _connect(one: Installation, session: Session, successor: Installation | None) -> tuple[Check, int]:
    """Check that Bitbucket accepts the secret of a Connect app; return its HTTP status as well, or 0."""
    if not one.workspace_uuid:
        what = f"{one.name} is not tried, because its payload names no workspace; give a repository's URL"
        return note("secret", what), 0
    try:
        slug = look_up_workspace(one, session)
    except RefusedError as problem:
        if problem.status in (403, 404):
            what = f"{one.name}: not known whether Bitbucket accepts it: {problem.what}"
            return note("secret", what, problem.hint), problem.status
        if successor is not None and problem.status in (401, 410) and ends_connect(problem, time.time()):
            return note("secret", f"{problem.what}; the {successor.name} takes over", problem.hint), problem.status
        return failed("secret", problem.what, problem.hint), problem.status
    except CredentialError as problem:
        return failed("secret", problem.what, problem.hint), 0
    if one.workspaces and slug not in one.workspaces:
        what = f"the workspace of the {one.name}, {', '.join(one.workspaces)}, has the slug {slug} now"
        register = one.remedy if one.secret_place.is_registered else NEWEST_PAYLOAD
        return failed("workspace", what, f"{register} --workspace {slug}; and update the remotes' URLs"), 200
    return passed("secret", f"Bitbucket accepts the {one.name} for the workspace {slug}"), 200


def _end_of_connect(*, has_consumer: bool) -> Check:
    left = days_left(time.time())
    when = f"{left} days left" if left >= 0 else f"{-left} days ago"
    before = f"before it, run {APP_NAME} register --oauth-consumer --after-connect --workspace SLUG, or use --broker"
    if has_consumer:
        before = "an OAuth consumer is registered for the time after it"
    return passed(
        "Connect", f"Atlassian's announced end of Connect in Bitbucket is {day_of_the_end()} ({when}); {before}"
    )


def _takes_over(consumer: Installation, app: Installation) -> bool:
    """Return whether ``consumer`` is for the time after ``app``, on the same workspace.

    An app without a slug may be on any workspace, unless both name a UUID.
    """
    is_on_any = not app.workspaces and not (app.workspace_uuid and consumer.workspace_uuid)
    is_on_same = consumer.host == app.host and (is_on_any or not set(consumer.keys).isdisjoint(app.keys))
    return consumer.after_connect and is_on_same
