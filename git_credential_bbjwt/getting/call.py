"""One call of the helper, and the rules for keeping a token."""

from git_credential_bbjwt.core.failures import CredentialError, TooManyRefusedError
from git_credential_bbjwt.core.options import HelperOptions
from git_credential_bbjwt.core.output import trace, warning
from git_credential_bbjwt.core.record import Record
from git_credential_bbjwt.core.repository import Repository
from git_credential_bbjwt.core.sources import Sources, read_sources
from git_credential_bbjwt.installations.catalogue import Candidate, Catalogue
from git_credential_bbjwt.system.budget import Budget, say_that_time_is_up
from git_credential_bbjwt.tokens.cache import TokenCache
from git_credential_bbjwt.tokens.slot import Slot
from git_credential_bbjwt.tokens.tidying import tidy
from git_credential_bbjwt.tokens.token import Token, cached_token, record_of
from git_credential_bbjwt.tokens.uuids import UUID_LIFE
from git_credential_bbjwt.vendors.choice import vendor_for
from git_credential_bbjwt.vendors.session import Session
from git_credential_bbjwt.vendors.vendor import Chooser, TokenRequest, Vendor

# Seconds for which a remembered UUID may replace a failed look-up if repositories are allowed by their names, because a
# name can move to another repository.
_UUIDS_OF_ALLOWED_NAMES = 7200


class Call:
    """One call of the helper, or one request to a broker: its options, sources, token cache, and its vendors' session.

    ``for_person`` marks a command that a person runs. Only a broker passes a ``cache``, because it must keep every
    token that it returns. ``whole_workspace`` says whether it may return tokens that open more than one repository.
    """

    def __init__(
        self,
        options: HelperOptions,
        sources: Sources,
        catalogue: Catalogue,
        budget: Budget,
        *,
        cache: TokenCache | None = None,
        for_person: bool = False,
        whole_workspace: bool = True,
    ) -> None:
        self.options = options
        self.sources = sources
        self.catalogue = catalogue
        self.budget = budget
        self.must_keep = cache is not None
        self.keeps = options.token_store != "none"
        self.cache = cache or TokenCache.open(create=self.keeps)
        self.whole_workspace = whole_workspace
        allows_names = self.must_keep or bool(options.allow)
        uuids_within = _UUIDS_OF_ALLOWED_NAMES if allows_names else UUID_LIFE
        self.session = Session(self.budget, self.cache, for_person=for_person, uuids_within=uuids_within)

    def vendors(self, candidates: list[Candidate]) -> list[Vendor | Chooser]:
        """Return the vendors for the result of `Catalogue.candidates`, in the same order."""
        return [vendor_for(one, self.session) for one in candidates]

    def request(self, repository: Repository, refused: list[str]) -> TokenRequest:
        """Return the request for a token with this call's scope."""
        return TokenRequest(repository, self.options.scope, refused)

    def slot(self, repository: Repository) -> Slot:
        """Return the cache's slot for the repository's token."""
        return Slot(self.cache, repository, self.options.scope, self.options.app)

    def __enter__(self) -> "Call":
        self.budget.watch(say_that_time_is_up)
        return self

    def __exit__(self, *exc: object) -> None:
        self.budget.finish()


def call_for_person(options: HelperOptions) -> Call:
    """Return the call of a person's command, which may get many tokens. Use it in a ``with`` statement."""
    sources = read_sources(options)
    return Call(options, sources, Catalogue(sources), Budget(options.timeout), for_person=True)


def use(call: Call, slot: Slot, record: Record, *, is_settled: bool = True) -> Token:
    """Return the record's token, and renew the record's stamp.

    With the sources' present stamp, the next call can answer from the record alone. Without ``is_settled``, the record
    gets no stamp, so the next call checks more than the record.
    """
    trace(f"{slot.repository.full_name}: using the cached token, which expires at {record.end}")
    stamp = call.sources.stamp_to_keep(slot.repository) if is_settled else ""
    if record.stamp != stamp:
        record.stamp = stamp
        try:
            slot.keep(record)
        except OSError as problem:
            trace(f"the token's record could not be renewed: {problem.strerror}")
    return cached_token(record)


def keep(call: Call, slot: Slot, token: Token, *, is_settled: bool = True) -> None:
    """Keep ``token`` in ``slot`` if it may be kept; ``is_settled`` as in `use`.

    If it cannot be written, print a warning. A broker raises CredentialError instead, because it could not limit its
    clients' requests.
    """
    may_be_kept = token.expires is not None and token.may_be_kept
    if not may_be_kept or not slot.can_keep(opens_workspace=token.opens_workspace):
        return
    stamp = call.sources.stamp_to_keep(slot.repository) if is_settled else ""
    record = record_of(token, slot.repository, slot.scope, slot.app, stamp=stamp)
    try:
        slot.keep(record)
    except OSError as problem:
        if not call.must_keep:
            warning(f"the token could not be cached, so each request will need a new one: {problem.strerror}")
            return
        tidy(call.cache, everything=True)
        try:
            slot.keep(record)
        except OSError as again:
            raise CredentialError(
                f"the token cannot be kept: {again.strerror}",
                "check that the broker's folder has free space, and that the broker's user can write to it",
            ) from again


def closed_error(repository: Repository, seconds: int, *, opens_workspace: bool) -> TooManyRefusedError:
    """Return the error for a repository that gets no token for ``seconds``, because the server refused the newest."""
    hint = f"run: git-credential-bbjwt doctor {repository.url}"
    if opens_workspace:
        return TooManyRefusedError(
            f"the server refuses the OAuth consumer's token for {repository.full_name}: it is not there, or closed to "
            f"the consumer; it gets no token for {seconds} s",
            f"check the URL, then {hint}",
            seconds,
        )
    return TooManyRefusedError(
        f"the server refuses every token for {repository.full_name}, even the newest; there is no other token for "
        f"{seconds} s",
        f"read the server's message to git, then {hint}",
        seconds,
    )
