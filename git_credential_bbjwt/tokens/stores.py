"""The token stores that ``--token-store`` chooses from: where a token itself is, beside its record in the cache."""

from collections.abc import Callable, Iterable

from git_credential_bbjwt.core.output import hide, trace, warning
from git_credential_bbjwt.tokens.cache import TokenCache
from git_credential_bbjwt.tokens.record import Record, fingerprint_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from git_credential_bbjwt.secret_stores.keyring_protocol import KeyringReply


class TokenStore:
    """Where tokens are kept. ``keeps`` is whether they are at all."""

    name: str
    keeps: bool

    def put(self, record: Record, token: str) -> bool:
        """Keep the token of ``record``, which is then ready to be kept itself; False where it cannot be."""
        raise NotImplementedError

    def token_of(self, record: Record) -> str | None:
        """The token of a ``record`` that names this store; None where it is gone."""
        raise NotImplementedError

    def remove(self, record: Record) -> None:
        """Remove the token of ``record``, the record itself aside."""
        raise NotImplementedError


class RuntimeStore(TokenStore):
    """The record holds the token."""

    name = "runtime"
    keeps = True

    def put(self, record: Record, token: str) -> bool:
        record.token = token
        return True

    def token_of(self, record: Record) -> str | None:
        return record.token

    def remove(self, record: Record) -> None:
        """Nothing is anywhere else."""


class KeyringStore(TokenStore):
    """The keyring holds the token, under a user name made of the record's name."""

    name = "keyring"
    keeps = True

    def put(self, record: Record, token: str) -> bool:
        reply = self._ask("set", record, token)
        if not reply.is_ok:
            warning(f"the token could not be kept in the keyring: {reply.reason or reply.outcome.value}")
        return reply.is_ok

    def token_of(self, record: Record) -> str | None:
        reply = self._ask("get", record)
        if not reply.is_ok or fingerprint_of(reply.secret.encode()) != record.fingerprint:
            trace(f"the cached token is not in the keyring: {reply.outcome.value}")
            return None
        hide(reply.secret)
        return reply.secret

    def remove(self, record: Record) -> None:
        self._ask("delete", record)

    @staticmethod
    def _ask(action: str, record: Record, token: str = "") -> "KeyringReply":
        from git_credential_bbjwt.secret_stores.keyring_call import KeyringCall

        return KeyringCall(action, _keyring_name(record), token).reply()


class NoStore(TokenStore):
    """Tokens are handed out and forgotten."""

    name = "none"
    keeps = False

    def put(self, record: Record, token: str) -> bool:  # noqa: ARG002  # every store's shape
        return False

    def token_of(self, record: Record) -> str | None:  # noqa: ARG002  # as above
        return None

    def remove(self, record: Record) -> None:
        """Nothing is anywhere."""


#: By the names that `options.TOKEN_STORES` has for them.
STORES: dict[str, TokenStore] = {store.name: store for store in (RuntimeStore(), KeyringStore(), NoStore())}


def _keyring_name(record: Record) -> str:
    return "token:" + TokenCache.name(record.repository, record.scope, record.app).rpartition("/")[2]


def forget(concerns: Callable[[Record], bool]) -> int:
    """Drop the cached tokens it ``concerns``, wherever they are kept; return how many."""
    return sum(
        _drop(cache, record) for cache in TokenCache.every_folder() for record in cache.records() if concerns(record)
    )


def forget_workspaces(workspaces: Iterable[tuple[str, str]]) -> None:
    """Drop the cached tokens of workspaces, each a host and a slug or a UUID, without looking at others'."""
    wanted = list(dict.fromkeys(workspaces))
    for cache in TokenCache.every_folder():
        for host, workspace in wanted:
            for record in list(cache.records_of(host, workspace)):
                _drop(cache, record)


def _drop(cache: TokenCache, record: Record) -> bool:
    if record.store in STORES:
        STORES[record.store].remove(record)
    cache.drop(record)
    if record.is_brokered:
        cache.note_refused(record.repository, record.scope, record.app, record.fingerprint, record.expires)
    return True
