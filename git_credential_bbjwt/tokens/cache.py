"""The token cache: one record a repository (and scope, and app), its folder, and when a record may be used again."""

import time

from git_credential_bbjwt.diagnostics import trace, warning
from git_credential_bbjwt.repository import Repository
from git_credential_bbjwt.system import places
from git_credential_bbjwt.system.digest import digest
from git_credential_bbjwt.system.private_folder import PrivateFolder, is_private

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

#: A token is used again only with this many seconds left: a clone that starts with it must be able to end with it. The
#: README and the man page tell it in words.
MIN_REMAINING = 300

# A record from the future was written while the clock was wrong: its expiry means nothing. A few seconds are a clock
# being slewed.
_CLOCK_SLACK = 30

#: Begins the ``identity`` of a record whose token a broker gave.
BROKERED = "broker-"

#: Seconds for which a refused token is named to a broker where its end is not known.
_REFUSAL_LIFE = 86_400

#: How many characters of a token's SHA-256 count.
STATE_LENGTH = 16

# How many files are looked at each time: some milliseconds' worth.
_TIDIED = 256

# How many refused tokens are remembered for one repository: more than anybody is told of.
_REFUSALS = 32

_FORMAT = "bbjwt-token-record 2"
_END = "end"


class Record:
    """One minted token and all that must be the same for using it again.

    ``minted`` and ``expires`` are Unix times. ``sources`` is the digest of all installation sources when it was
    minted, ``identity`` that of the installation alone. ``state`` is the token's `token_state`; ``store`` names
    where the token is kept; ``token`` is None where that is not this record. ``username`` goes with it.
    """

    __slots__ = (
        "app",
        "expires",
        "host",
        "identity",
        "minted",
        "name",
        "scope",
        "sources",
        "state",
        "store",
        "token",
        "username",
        "uuid",
        "workspace",
    )

    def __init__(
        self,
        repository: Repository,
        scope: str,
        app: str,
        *,
        sources: str,
        identity: str,
        uuid: str,
        state: str,
        minted: int,
        expires: int,
        store: str,
        username: str,
        token: str | None,
    ) -> None:
        self.host = repository.host
        self.workspace = repository.workspace
        self.name = repository.name
        self.scope = scope
        self.app = app
        self.sources = sources
        self.identity = identity
        self.uuid = uuid
        self.state = state
        self.minted = minted
        self.expires = expires
        self.store = store
        self.username = username
        self.token = token

    def may_answer(self, token_store: str, refused: list[str]) -> bool:
        """Whether the token may be handed out again.

        It is kept where ``--token-store`` says, its `token_state` is none of the ``refused`` ones, and enough of its
        life is left, by a clock that has not been set back since.
        """
        return self.store == token_store and self.state not in refused and self.may_be_in_time()

    def may_be_in_time(self) -> bool:
        """Whether enough of its life is left, by a clock that has not been set back since."""
        return self.minted - _CLOCK_SLACK <= time.time() <= self.expires - MIN_REMAINING

    @property
    def is_brokered(self) -> bool:
        """Whether a broker gave it."""
        return self.identity.startswith(BROKERED)

    @property
    def repository(self) -> Repository:
        """The repository the token is for."""
        return Repository(self.host, self.workspace, self.name)

    def to_bytes(self) -> bytes:
        """The record as its file holds it."""
        lines = [_FORMAT]
        lines += [f"{field}={getattr(self, field)}" for field in _TEXT_FIELDS]
        lines += [f"minted={self.minted}", f"expires={self.expires}"]
        if self.token is not None:
            lines.append(f"token={self.token}")
        lines += [_END, ""]
        return "\n".join(lines).encode("ascii")


_TEXT_FIELDS = (
    "host",
    "workspace",
    "name",
    "scope",
    "app",
    "sources",
    "identity",
    "uuid",
    "state",
    "store",
    "username",
)


def parse_record(data: bytes) -> Record | None:
    """Return the record, or None for anything that is not a whole one."""
    try:
        lines = data.decode("ascii").split("\n")
        if lines[0] != _FORMAT or lines[-2:] != [_END, ""]:
            return None
        fields = dict(line.split("=", 1) for line in lines[1:-2])
        text = [fields[field] for field in _TEXT_FIELDS]
        token = fields.get("token")
        if token is not None and (not token.isprintable() or " " in token or not token):
            return None
        return Record(
            Repository(text[0], text[1], text[2]),
            text[3],
            text[4],
            sources=text[5],
            identity=text[6],
            uuid=text[7],
            state=text[8],
            store=text[9],
            username=text[10],
            minted=int(fields["minted"]),
            expires=int(fields["expires"]),
            token=token,
        )
    except (ValueError, KeyError, IndexError):
        return None


def token_state(token: bytes) -> str:
    """What a token is recognised by, here and in ``state[]``: the first characters of its hexadecimal SHA-256."""
    from hashlib import sha256  # Loads OpenSSL; an answer from the cache needs no digest.

    return sha256(token).hexdigest()[:STATE_LENGTH]


def _repository_prefix(repository: Repository) -> str:
    return digest(repository.host, repository.workspace, repository.name) + "-"


class TokenCache:
    """The records of this user.

    The folder is the user's runtime folder where that is private to the user, else platformdirs' user cache folder.
    Where neither can be used there is no cache: nothing is found, nothing is kept, and tokens are minted each time.
    """

    def __init__(self, folder: PrivateFolder | None) -> None:
        self.folder = folder

    @classmethod
    def open(cls, *, create: bool) -> "TokenCache":
        """The cache of this user, in the first folder that can be used; ``create`` makes it where there is none."""
        for path in _candidates():
            folder = _open(path, create=create)
            if folder is not None:
                return cls(folder)
        return cls(None)

    @classmethod
    def every_folder(cls) -> "list[TokenCache]":
        """One cache for each folder there is, for who means to drop records wherever they are."""
        folders = (_open(path, create=False) for path in _candidates())
        return [cls(folder) for folder in folders if folder is not None]

    @staticmethod
    def name(repository: Repository, scope: str, app: str) -> str:
        """The name of the record's file."""
        return _repository_prefix(repository) + digest(scope, app)[:16]

    def find(self, repository: Repository, scope: str, app: str) -> Record | None:
        """Return the record of exactly this repository, scope and app, whatever its age; None where there is none."""
        if self.folder is None:
            return None
        data = self.folder.read(self.name(repository, scope, app))
        record = parse_record(data) if data else None
        if record is None or (record.host, record.workspace, record.name, record.scope, record.app) != (
            repository.host,
            repository.workspace,
            repository.name,
            scope,
            app,
        ):
            return None
        return record

    def refused(self, repository: Repository, scope: str, app: str) -> list[str]:
        """The states of tokens that the server refused, or that were to be forgotten, the newest last."""
        return [state for state, expires in self._refusals(repository, scope, app) if expires > time.time()]

    def _refusals(self, repository: Repository, scope: str, app: str) -> list[tuple[str, int]]:
        data = None if self.folder is None else self.folder.read(self.name(repository, scope, app) + ".refused")
        found = []
        for line in (data or b"").decode("ascii", "replace").splitlines():
            state, _, expires = line.partition(" ")
            if expires.isdigit():
                found.append((state, int(expires)))
        return found

    def note_refused(self, repository: Repository, scope: str, app: str, state: str, expires: int | None) -> None:
        """Remember until ``expires``, a Unix time, that this token is not wanted again; a day where it is not known."""
        if self.folder is None:
            return
        until = int(time.time()) + _REFUSAL_LIFE if expires is None else expires
        kept = [one for one in self._refusals(repository, scope, app) if one[0] != state and one[1] > time.time()]
        lines = [f"{one} {end}\n" for one, end in [*kept, (state, until)][-_REFUSALS:]]
        try:
            self.folder.write(self.name(repository, scope, app) + ".refused", "".join(lines).encode())
        except OSError as problem:
            trace(f"the refused token could not be noted: {problem.strerror}")

    def keep(self, record: Record) -> None:
        """Put ``record`` in place of its predecessor. Raises OSError, and the predecessor is then as it was."""
        if self.folder is not None:
            self.folder.write(self.name(record.repository, record.scope, record.app), record.to_bytes())

    def drop(self, record: Record) -> None:
        """Remove ``record``."""
        if self.folder is not None:
            self.folder.remove(self.name(record.repository, record.scope, record.app))

    def clear(self) -> None:
        """Remove every file that is named as ours, broken records and leftovers of killed processes too.

        The folder goes as well, if nothing else is in it.
        """
        if self.folder is not None:
            for name in self.folder.names():
                if _is_ours(name):
                    self.folder.remove(name)
            self.folder.remove_itself()

    def tidy(self) -> None:
        """Remove what can never be used again, so that the folder does not grow with every repository seen.

        A little at a time, from a place chosen by chance, so that the cost does not grow with the folder, and each file
        gets its turn.
        """
        if self.folder is None:
            return
        from random import randrange

        names = [name for name in self.folder.names() if _is_ours(name)]
        start = randrange(len(names)) if names else 0  # noqa: S311  # no key
        for name in (names[start:] + names[:start])[:_TIDIED]:
            if "." in name:
                used_up = self.folder.age(name) > _REFUSAL_LIFE
            else:
                record = parse_record(self.folder.read(name) or b"")
                used_up = record.expires <= time.time() if record is not None else self.folder.age(name) > _REFUSAL_LIFE
            if used_up:
                self.folder.remove(name)

    def records(self) -> list[Record]:
        """All records, used up ones included."""
        if self.folder is None:
            return []
        found = (parse_record(self.folder.read(name) or b"") for name in self.folder.names() if "." not in name)
        return [record for record in found if record is not None]


def _open(path: str, *, create: bool) -> PrivateFolder | None:
    try:
        return PrivateFolder(path, create=create)
    except OSError as problem:
        if isinstance(problem, PermissionError) and problem.filename == path:
            warning(f"the folder {path} is not used, and tokens are not kept there: {problem.strerror}")
        elif create or not isinstance(problem, FileNotFoundError):
            trace(f"no token cache in {path}: {problem.strerror}")
        return None


def _is_ours(name: str) -> bool:
    """Whether a file is named as a record is, or as one of the files beside it."""
    record, _, ending = name.partition(".")
    repository, _, rest = record.partition("-")
    hexadecimal = _HEX.issuperset(repository + rest)
    return (len(repository), len(rest)) == (32, 16) and hexadecimal and ending.split(".")[0] in _ENDINGS


# Of a record; its lock and what is not yet one; what was refused, what a broker is about to do, found and counted.
_ENDINGS = ("", "lock", "new", "refused", "minting", "named", "lookups")

_HEX = frozenset("0123456789abcdef")


def _candidates() -> "Iterator[str]":
    for_this_run = places.exec_folder()
    if for_this_run is not None:
        yield for_this_run
        return
    runtime = places.user_runtime_base()
    if runtime is not None and is_private(runtime):
        yield runtime + "/" + places.APP_NAME
    cache = places.user_cache_folder()
    if cache is not None:
        yield cache
