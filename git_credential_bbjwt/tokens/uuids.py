"""The UUIDs of repositories, remembered from earlier look-ups. They are not secret."""

from git_credential_bbjwt.core.output import trace
from git_credential_bbjwt.core.record import slot_name
from git_credential_bbjwt.core.repository import Repository, is_uuid
from git_credential_bbjwt.tokens.cache import TokenCache, try_to_remove, write
from git_credential_bbjwt.tokens.names import UUID

#: Seconds for which a UUID is remembered.
UUID_LIFE = 30 * 86_400


class KnownUuids:
    """The UUIDs that repositories had when they were last looked up."""

    def __init__(self, cache: TokenCache) -> None:
        self._folder = cache.uuids

    def find(self, repository: Repository, *, by: str = "", within: float = UUID_LIFE) -> str | None:
        """Return the UUID that a look-up returned for ``repository`` in the last ``within`` seconds.

        ``by`` is the installation that made the look-up; if it is empty, any installation.
        """
        name = _name(repository)
        if self._folder is None or not 0 <= self._folder.age(name) < min(within, UUID_LIFE):
            return None
        uuid, _, found_by = (self._folder.read(name) or b"").decode("ascii", "replace").partition(" ")
        return uuid if is_uuid(uuid) and by in ("", found_by) else None

    def remember(self, repository: Repository, uuid: str, *, by: str) -> None:
        """Remember that a look-up of the installation ``by`` has just returned ``uuid``."""
        if self._folder is None:
            return
        try:
            write(self._folder, _name(repository), f"{uuid} {by}".encode())
        except OSError as problem:
            trace(f"the repository's UUID could not be remembered: {problem.strerror}")

    def forget(self, repository: Repository) -> None:
        """Forget the UUID of a repository that no longer exists."""
        if self._folder is not None:
            try_to_remove(self._folder, _name(repository))


def _name(repository: Repository) -> str:
    return slot_name(repository, "", "") + UUID
