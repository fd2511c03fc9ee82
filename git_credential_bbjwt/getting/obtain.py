"""Getting one token: a cached one if it may be used, else a new one under the slot's lock."""

from collections.abc import Callable

from git_credential_bbjwt.core.budget import Budget, say_that_time_is_up
from git_credential_bbjwt.core.failures import (
    BrokerError,
    InstallationError,
    TooManyRefusedError,
    UnkeptError,
)
from git_credential_bbjwt.core.options import HelperOptions, check_allowed
from git_credential_bbjwt.core.output import trace, warning
from git_credential_bbjwt.core.repository import Repository
from git_credential_bbjwt.installations.asked import Asked
from git_credential_bbjwt.installations.catalogue import Catalogue
from git_credential_bbjwt.installations.installation import Installation
from git_credential_bbjwt.installations.sources import Sources, read_sources
from git_credential_bbjwt.tokens.cache import TokenCache
from git_credential_bbjwt.tokens.record import BROKERED, Record, fingerprint_of
from git_credential_bbjwt.tokens.slot import Slot
from git_credential_bbjwt.tokens.tidying import tidy
from git_credential_bbjwt.tokens.token import Token
from git_credential_bbjwt.vendors.choice import vendor_for
from git_credential_bbjwt.vendors.session import Session
from git_credential_bbjwt.vendors.vendor import Vendor

#: Called under the slot's lock in place of what gets a new token, which is its last argument; it also gets the slot and
#: its record. Raises CredentialError.
Supervise = Callable[[Slot, Record | None, Callable[[], Token | None]], Token | None]


class Asking:
    """What all requests of one call share: the sources, the session with its budget, and the token cache.

    ``for_person`` marks a command that a person runs. A ``cache`` is given by a broker, which must keep every token
    that it hands out.
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
    ) -> None:
        self.options = options
        self.sources = sources
        self.catalogue = catalogue
        self.budget = budget
        self.must_keep = cache is not None
        self.keeps = options.token_store != "none"
        self.cache = cache or TokenCache.open(create=self.keeps)
        self.session = Session(self.budget, self.cache, for_person=for_person)
        self.for_person = for_person

    def vendors(self, sources: list[Installation | Asked]) -> list[Vendor]:
        """Return the vendors for what `Catalogue.answering` found, in the same order."""
        return [vendor_for(one, self.session) for one in sources]

    def slot(self, repository: Repository) -> Slot:
        """Return the cache's slot for the repository's token."""
        return self.cache.slot(repository, self.options.scope, self.options.app)

    def __enter__(self) -> "Asking":
        self.budget.watch(say_that_time_is_up)
        return self

    def __exit__(self, *exc: object) -> None:
        self.budget.finish()

    def get(self, repository: Repository) -> Token:
        """Return a token for ``repository``, for a person's command.

        Raises CredentialError; InstallationError if no installation serves it.
        """
        sources = self.catalogue.answering(repository, self.options.app)
        check_allowed(self.options.allow, repository)
        token = obtain(self, repository, self.vendors(sources)) if sources else None
        if token is None:
            raise InstallationError(
                f"no installation serves {repository.full_name} on {repository.host}",
                "git-credential-bbjwt list shows the registered ones; register adds one",
            )
        return token


def asking_for_person(options: HelperOptions) -> Asking:
    """Return what a person's command needs to get tokens, one or many, between ``with`` and its end."""
    sources = read_sources(options)
    return Asking(options, sources, Catalogue(sources), Budget(options.timeout), for_person=True)


def token_for_person(repository: Repository, options: HelperOptions) -> Token:
    """Return a token for ``repository``, for a person's command. Raises as `Asking.get` does."""
    with asking_for_person(options) as asking:
        return asking.get(repository)


def obtain(
    asking: Asking,
    repository: Repository,
    vendors: list[Vendor],
    refused: list[str] | None = None,
    *,
    supervise: Supervise | None = None,
) -> Token | None:
    """Return a token for ``repository``: the cached one if it may be used, else that of the first vendor that has one.

    None if no vendor has anything to say. ``refused`` are the fingerprints of tokens that git's server refused. One
    process at a time gets a token for a slot; the others wait and use it. Raises CredentialError.
    """
    slot, refused = asking.slot(repository), refused or []
    if not asking.keeps:
        # A token that a broker gave and the server refused must not come back, kept or not.
        return _first_token(vendors, repository, asking.options.scope, [*slot.refused(), *refused])[0]
    with slot.lock(asking.budget):
        record = slot.find()
        if not asking.for_person:
            _check_not_closed(slot)
        if record is not None and record.may_answer(refused, identities=tuple(one.identity for one in vendors)):
            return _use(asking, slot, record)
        if supervise is not None:
            return supervise(slot, record, lambda: _new_token(asking, slot, record, vendors, refused))
        return _new_token(asking, slot, record, vendors, refused)


def _new_token(
    asking: Asking, slot: Slot, record: Record | None, vendors: list[Vendor], refused: list[str]
) -> Token | None:
    """Get a new token in place of ``record``, and keep it."""
    if record is not None and record.fingerprint in refused and record.is_in_time():
        _count_remint(slot, record)
    unwanted = slot.refused()
    unwanted += [fingerprint for fingerprint in refused if fingerprint not in unwanted]
    token, identity = _first_token(vendors, slot.repository, slot.scope, unwanted)
    if token is None or token.is_cached:  # A vendor whose tokens serve many repositories has a slot of its own.
        return token
    if identity.startswith(BROKERED):
        for one in refused:
            slot.refuse(one, record.expires if record and record.fingerprint == one else None)
        if fingerprint_of(token.value.encode()) in unwanted:
            raise BrokerError("the broker gave a token that the server has already refused", "ask who runs the broker")
    keep(asking, slot, token, identity)
    return token


def _first_token(
    vendors: list[Vendor], repository: Repository, scope: str, unwanted: list[str]
) -> tuple[Token | None, str]:
    """The first token that a vendor has, and the vendor's identity."""
    for vendor in vendors:
        token = vendor.token(repository, scope, unwanted)
        if token is not None:
            return token, vendor.identity
    return None, ""


def _use(asking: Asking, slot: Slot, record: Record) -> Token:
    """Return the record's token; note that it still belongs to what the sources say, for the next cached answer."""
    trace(f"{slot.repository.full_name}: using the cached token, which expires at {record.end}")
    stamp = asking.sources.stamp_to_keep(slot.repository)
    if record.stamp != stamp:
        record.stamp = stamp
        try:
            slot.keep(record)
        except OSError as problem:
            trace(f"the token's record could not be renewed: {problem.strerror}")
    return record.to_token()


def _check_not_closed(slot: Slot) -> None:
    """Raise TooManyRefusedError for a repository whose newest token the server has refused within the last 30 s."""
    seconds = slot.closed_for()
    if seconds:
        raise TooManyRefusedError(
            f"the server refuses every token for {slot.repository.full_name}, the newest one too; there is no other "
            f"for {seconds} s",
            f"see what the server tells git; git-credential-bbjwt doctor https://{slot.repository.host}/"
            f"{slot.repository.full_name} checks each step",
        )


def _count_remint(slot: Slot, record: Record) -> None:
    try:
        slot.count_remint()
    except TooManyRefusedError:
        slot.close(record)
        raise


def keep(asking: Asking, slot: Slot, token: Token, identity: str) -> None:
    """Keep ``token`` in ``slot`` if it may be kept.

    If it cannot be written, a broker gets UnkeptError, because nothing would limit what it hands out; anyone else gets
    a warning.
    """
    may_be_kept = token.expires is not None and token.may_be_kept
    if not may_be_kept or not slot.can_keep(opens_workspace=token.opens_workspace):
        return
    stamp = asking.sources.stamp_to_keep(slot.repository)
    record = Record.of(token, slot.repository, slot.scope, slot.app, stamp=stamp, identity=identity)
    try:
        slot.keep(record)
    except OSError as problem:
        if not asking.must_keep:
            warning(f"the token could not be cached, so each request will need a new one: {problem.strerror}")
            return
        tidy(asking.cache, everything=True)
        try:
            slot.keep(record)
        except OSError as again:
            raise UnkeptError(f"the token cannot be kept: {again.strerror}") from again
