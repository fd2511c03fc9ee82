"""Get one token: the cached token if it may be used, otherwise a new token under the slot's lock."""

from collections.abc import Callable

from git_credential_bbjwt.core.failures import BrokerError, InstallationError, TooManyRefusedError
from git_credential_bbjwt.core.on_demand import OnDemandSource
from git_credential_bbjwt.core.options import HelperOptions, check_allowed
from git_credential_bbjwt.core.record import BROKERED, Record
from git_credential_bbjwt.core.repository import Repository
from git_credential_bbjwt.getting.call import Call, call_for_person, closed_error, keep, use
from git_credential_bbjwt.tokens.slot import Slot
from git_credential_bbjwt.tokens.token import Token
from git_credential_bbjwt.vendors.vendor import Chooser, TokenRequest, Vendor

#: A broker's limits: a function that gets a new token by its last argument, under the slot's lock, unless a client has
#: requested too much. The other arguments are the slot and the slot's record. Raises CredentialError.
Limits = Callable[[Slot, Record | None, Callable[[], Token | None]], Token | None]


def token_for_person(repository: Repository, options: HelperOptions) -> Token:
    """Return a token for ``repository``, for a person's command. Raises as `obtain_for_person` does."""
    with call_for_person(options) as call:
        return obtain_for_person(call, repository)


def obtain_for_person(call: Call, repository: Repository) -> Token:
    """Return a token for ``repository``, for a person's command.

    Raises CredentialError; InstallationError if no installation serves it.
    """
    candidates = call.catalogue.candidates(repository, call.options.app)
    check_allowed(call.options.allow, repository)
    token = obtain(call, repository, call.vendors(candidates)) if candidates else None
    if token is None:
        asked = [one.where for one in candidates if isinstance(one, OnDemandSource)]
        if asked and len(asked) == len(candidates):
            raise InstallationError(
                f"{' and '.join(asked)} has no token for {repository.full_name}",
                "check the URL; a broker's operator or a command's author decides which workspaces it serves",
            )
        if call.options.app:
            raise InstallationError(
                f"no installation with the key of --app serves {repository.full_name} on {repository.host}",
                "leave out --app, or find the key: git-credential-bbjwt list",
            )
        raise InstallationError(
            f"no installation serves {repository.full_name} on {repository.host}",
            "run git-credential-bbjwt list, or add an installation: git-credential-bbjwt register FILE",
        )
    return token


def obtain(
    call: Call,
    repository: Repository,
    vendors: list[Vendor | Chooser],
    refused: list[str] | None = None,
    *,
    limits: Limits | None = None,
) -> Token | None:
    """Return a token for ``repository``: the cached token if it may be used, otherwise the first vendor's that has one.

    Return None if no vendor serves the repository. ``refused`` are the fingerprints of tokens that git's server
    refused. One process at a time gets a token for a slot; the others wait and use it. Raises CredentialError.
    """
    slot, refused = call.slot(repository), refused or []
    _check_not_closed(call, slot, vendors)
    if not call.keeps:
        # Even if tokens are not kept, a broker's token that the server refused must not be returned again.
        return _first_token(call, vendors, call.request(repository, [*slot.refused(), *refused]))
    with slot.lock(call.budget):
        record = slot.find()
        if record is not None and record.may_answer(refused, identities=tuple(one.identity for one in vendors)):
            return use(call, slot, record)
        if limits is not None:
            return limits(slot, record, lambda: _new_token(call, slot, record, vendors, refused))
        return _new_token(call, slot, record, vendors, refused)


def _check_not_closed(call: Call, slot: Slot, vendors: list[Vendor | Chooser]) -> None:
    """Raise TooManyRefusedError if the server has refused the newest token, too, within `CLOSED_FOR`."""
    seconds = 0 if call.session.for_person else slot.closed_for()
    if seconds:
        opens_workspace = isinstance(vendors[-1], Vendor) and vendors[-1].opens_workspace
        raise closed_error(slot.repository, seconds, opens_workspace=opens_workspace)


def _new_token(
    call: Call, slot: Slot, record: Record | None, vendors: list[Vendor | Chooser], refused: list[str]
) -> Token | None:
    """Get a new token in place of ``record``, and keep it."""
    is_refused = record is not None and record.fingerprint in refused and record.is_in_time()
    if is_refused:
        _count_remint(slot, record)
    unwanted = slot.refused()
    unwanted += [fingerprint for fingerprint in refused if fingerprint not in unwanted]
    token = _first_token(call, vendors, call.request(slot.repository, unwanted))
    if token is None:
        return None
    if token.identity.startswith(BROKERED):
        for one in refused:
            slot.refuse(one, record.expires if record and record.fingerprint == one else None)
        if token.fingerprint in unwanted:
            raise BrokerError(
                "the broker returned a token that the server has already refused", "ask the broker's operator"
            )
    elif token.opens_workspace:  # It is kept in the workspace's slot. This slot must not keep the refused token.
        if is_refused:
            slot.drop()
        return token
    keep(call, slot, token)
    return token


def _first_token(call: Call, vendors: list[Vendor | Chooser], request: TokenRequest) -> Token | None:
    """Return the token of the first vendor that has one. One vendor needs no `changeover`, which is slow to load."""
    only = vendors[0]
    if len(vendors) == 1 and isinstance(only, Vendor) and not only.opens_workspace:
        return only.token(request)

    from git_credential_bbjwt.getting.changeover import first_token

    return first_token(call, vendors, request)


def _count_remint(slot: Slot, record: Record | None) -> None:
    try:
        slot.count_remint()
    except TooManyRefusedError:
        slot.close(record)
        raise
