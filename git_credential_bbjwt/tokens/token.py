"""A token for git, whoever gave it."""

from git_credential_bbjwt.git.protocol import USERNAME


class Token:
    """An access token with its end and its reach.

    ``value`` is what git gets as the password. ``expires`` is the Unix time of its end, None if that is not known;
    ``minted`` is the Unix time at which it was requested. ``uuid`` is that of the one repository it opens, None if a
    broker gave it or if it ``opens_workspace``. ``granted`` names the scopes of a token that opens a workspace, and
    ``asked`` the scope that it was found to be no broader than.
    """

    __slots__ = (
        "asked",
        "expires",
        "granted",
        "is_cached",
        "may_be_kept",
        "minted",
        "opens_workspace",
        "username",
        "uuid",
        "value",
    )

    def __init__(
        self,
        value: str,
        *,
        expires: int | None,
        minted: int,
        uuid: str | None = None,
        username: str = USERNAME,
        opens_workspace: bool = False,
        granted: str = "",
        asked: str = "",
        is_cached: bool = False,
        may_be_kept: bool = True,
    ) -> None:
        self.value = value
        self.expires = expires
        self.minted = minted
        self.uuid = uuid
        self.username = username
        self.opens_workspace = opens_workspace
        self.granted = granted
        self.asked = asked
        #: Whether it comes from the token cache. Git gets such a token with a ``state[]`` to refuse it by.
        self.is_cached = is_cached
        #: Whether the token cache may keep it.
        self.may_be_kept = may_be_kept
