"""Bitbucket itself: its hosts, the clock, whether it accepts each secret, the end of Connect."""

import time
from collections.abc import Iterator

from git_credential_bbjwt.bitbucket.assertion import CLOCK_TOLERANCE
from git_credential_bbjwt.bitbucket.connect_end import day_of_the_end, days_left
from git_credential_bbjwt.bitbucket.consumer import OAuthConsumer, check_scope
from git_credential_bbjwt.commands.checks.check import Check, checked, failed, note, passed
from git_credential_bbjwt.core.failures import NEWEST_PAYLOAD, CredentialError, RefusedError
from git_credential_bbjwt.core.places import APP_NAME
from git_credential_bbjwt.getting.changeover import ends_connect
from git_credential_bbjwt.git.http_settings import HttpSettings
from git_credential_bbjwt.installations.installation import Installation
from git_credential_bbjwt.network.connections import Connections
from git_credential_bbjwt.secret_stores.secret_store import shared_secret_of
from git_credential_bbjwt.system.budget import Budget
from git_credential_bbjwt.tokens.cache import TokenCache
from git_credential_bbjwt.vendors.connect import look_up_workspace
from git_credential_bbjwt.vendors.session import Session

_UNAUTHORIZED, _FORBIDDEN, _NOT_FOUND, _GONE = 401, 403, 404, 410


class Bitbucket:
    """The checks that send requests. They share a budget and git's settings; ``reached`` has the URLs that answered."""

    def __init__(self, budget: Budget, scope: str) -> None:
        self._budget = budget
        self._scope = scope
        self._settings = HttpSettings()
        self._session = Session(budget, TokenCache.open(create=False), for_person=True)
        self._skews: list[float] = []
        self.reached: set[str] = set()
        #: Whether a Connect app's JWT was accepted; None if none was tried.
        self.accepts_connect: bool | None = None

    def hosts(self, installations: list[Installation]) -> Iterator[Check]:
        """Check that the hosts of all installations answer, and this machine's clock."""
        urls = [url for one in installations for url in (one.base_url, one.base_api_url)]
        for url in dict.fromkeys(url for url in urls if url):
            found = checked("network", self._host, url)
            if found.ok:
                self.reached.add(url)
            yield found
        if self._skews:
            yield self._clock()

    def _host(self, url: str) -> str:
        started = time.monotonic()
        response = Connections(self._budget, self._settings).take(url).request("GET", "/", dict)
        if response.date is not None:
            self._skews.append(response.date - time.time())
        return f"{url} answers ({time.monotonic() - started:.2f} s)"

    def _clock(self) -> Check:
        worst = max(self._skews, key=abs)
        if abs(worst) <= CLOCK_TOLERANCE:
            return passed("clock", f"within {CLOCK_TOLERANCE} s of Bitbucket's")
        side = "behind" if worst > 0 else "ahead of"
        return failed(
            "clock", f"{abs(worst):.0f} s {side} Bitbucket's", "set it, for example: timedatectl set-ntp true"
        )

    def secrets(self, installations: list[Installation], *, is_minting: bool) -> Iterator[Check]:
        """Check that Bitbucket accepts the secret of each installation.

        With ``is_minting`` a mint follows, which says more about what this leaves open.
        """
        for one in installations:
            if one.is_consumer and one.base_url in self.reached:
                yield checked("secret", self._consumer, one)
            elif not one.is_consumer and not one.jwt and self.reached.issuperset((one.base_url, one.base_api_url)):
                successors = [other for other in installations if _takes_over(other, one)]
                found = self._connect(one, successors)
                if found.ok is not None or successors or not is_minting:
                    yield found

    def _consumer(self, one: Installation) -> str:
        origin = Connections(self._budget, self._settings).take(one.base_url)
        token = OAuthConsumer(origin, one.app_key, shared_secret_of(one), one.remedy).token()
        check_scope(token.scope, self._scope)
        return f"Bitbucket gives the {one.name} a token of scope {token.scope}"

    def _connect(self, one: Installation, successors: list[Installation]) -> Check:
        if not one.workspace_uuid:
            what = f"{one.name} is not tried, because its payload names no workspace; give a repository's URL"
            return note("secret", what)
        try:
            slug = look_up_workspace(one, self._session)
        except CredentialError as problem:
            status = problem.status if isinstance(problem, RefusedError) else 0
            ends = isinstance(problem, RefusedError) and ends_connect(problem, time.time())
            if status in (_FORBIDDEN, _NOT_FOUND):
                what = f"{one.name}: not known whether Bitbucket accepts it: {problem.what}"
                return note("secret", what, problem.hint)
            if status in (_UNAUTHORIZED, _GONE):
                self.accepts_connect = self.accepts_connect or False
                if successors and ends:
                    return note("secret", f"{problem.what}; the {successors[0].name} takes over", problem.hint)
            return failed("secret", problem.what, problem.hint)
        self.accepts_connect = True
        if one.workspaces and slug not in one.workspaces:
            what = f"the workspace of the {one.name}, {', '.join(one.workspaces)}, has the slug {slug} now"
            return failed("workspace", what, f"{NEWEST_PAYLOAD} --workspace {slug}; and update the remotes' URLs")
        return passed("secret", f"Bitbucket accepts the {one.name} for the workspace {slug}")

    def end_of_connect(self, installations: list[Installation]) -> Iterator[Check]:
        """Say when Connect ends, if there is a Connect app that Bitbucket does not refuse."""
        if self.accepts_connect is False or not any(not one.is_consumer for one in installations):
            return
        left = days_left(time.time())
        when = f"{left} days left" if left >= 0 else f"{-left} days ago"
        what = f"Atlassian's announced end of Connect in Bitbucket is {day_of_the_end()} ({when})"
        if any(one.is_consumer for one in installations):
            yield passed("Connect", f"{what}; an OAuth consumer is registered for the time after it")
            return
        before = (
            f"before it, run {APP_NAME} register --oauth-consumer --after-connect --workspace SLUG, or use --broker"
        )
        yield passed("Connect", f"{what}; {before}")


def _takes_over(consumer: Installation, app: Installation) -> bool:
    """Return whether ``consumer`` is for the time after ``app``, on the same workspace.

    An app without a slug may be on any workspace, unless both name a UUID.
    """
    if not consumer.after_connect or consumer.host != app.host:
        return False
    if app.workspaces:
        return not set(consumer.workspaces).isdisjoint(app.workspaces)
    return not consumer.workspace_uuid or app.workspace_uuid in ("", consumer.workspace_uuid)
