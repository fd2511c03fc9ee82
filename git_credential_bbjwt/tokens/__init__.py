"""Kept tokens: one record a repository (and scope, and app), when one may answer again, and the folder they are in.

The folder holds one for each 61st part of the workspaces, and each of those one for each 61st part of their
repositories: so a workspace's records are found, and used up ones removed, by looking at a small part of them.
"""

import time

from git_credential_bbjwt.diagnostics import trace, warning
from git_credential_bbjwt.repository import Repository, is_uuid
from git_credential_bbjwt.system import NOT_YET, PrivateFolder, file_name, is_private, places

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

_FORMAT = "bbjwt-token-record 3"
_END = "end"


class Record:
    """One minted token and all that must be the same for using it again.

    ``minted`` and ``expires`` are Unix times. ``sources`` is the stamp of all installation sources when it was minted,
    ``identity`` a digest of who gave it. ``state`` is the token's `token_state`; ``store`` names the token store it is
    kept in; ``token`` is None where that is not this record. ``username`` goes with it.
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

    def may_answer(
        self, token_store: str, refused: list[str], *, sources: str = "", identities: tuple[str, ...] = ()
    ) -> bool:
        """Whether the token may be handed out again.

        It is of one who is still asked: nothing has changed in the ``sources`` since, or who gave it is one of the
        ``identities``. It is kept where ``--token-store`` says, its `token_state` is none of the ``refused`` ones, and
        enough of its life is left, by a clock that has not been set back since.
        """
        still_asked = self.sources == sources != "" or self.identity in identities
        return still_asked and self.store == token_store and self.state not in refused and self.may_be_in_time()

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

    from git_credential_bbjwt.git import STATE_LENGTH

    return sha256(token).hexdigest()[:STATE_LENGTH]


# A prime, so that all bytes of a name count.
_PARTS = 61

#: Seconds for which a refused token is named to a broker where its end is not known, and after which a file beside the
#: records is a leftover.
_A_DAY = 86_400

# Seconds that removing what is used up may take each time.
_TIDYING = 0.005

# How many refused tokens are remembered for one repository: more than anybody is told of.
_REFUSALS = 32

# Begin the name of what is kept beside a record: its lock, what was refused, when it was minted anew for that, what a
# broker is about to do and found.
_BESIDE = "~"
LOCK = "~lock"
REMINTS = "~reminted"
MINTING = "~minting"
NAMED = "~named"
_REFUSED = "~refused"

#: Counts the look-ups of a broker.
LOOKUPS = "lookups"

#: Tells when Bitbucket's announcement of an end was last shown.
ANNOUNCED = "announced"

#: The folder of `refusals`.
REFUSALS = "refusals"

#: How many tokens are minted anew for one repository because the server refused the one before, and within how many
#: seconds: what it goes on refusing is not mended by another.
MOST_REMINTS = 5
_REMINTS_WITHIN = 300

# A repository's UUID is remembered for so long. Seconds.
_UUID_LIFE = 30 * _A_DAY
_UUID = "~uuid"

_HEX = frozenset("0123456789abcdef")


def _part(text: str) -> str:
    return f"{int.from_bytes(text.encode('utf-8', 'surrogateescape'), 'big') % _PARTS:02x}"


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
        """The name of the record's file, and with an ending of those beside it."""
        host, workspace, name = repository.host, repository.workspace, repository.name
        folder = f"{_part(f'{host}/{workspace}')}/{_part(f'{name}/{scope}/{app}')}"
        return f"{folder}/{file_name(host, workspace, name, scope, app)}"

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

    def write(self, name: str, data: bytes, *, until: float | None = None) -> None:
        """Write a file by its whole name; ``until`` is the Unix time from which it is used up. Raises OSError."""
        assert self.folder is not None
        self.make_place_for(name)
        self.folder.write(name, data, date=until)

    def make_place_for(self, name: str) -> None:
        """Make the folders that the file ``name`` is to be in. Raises OSError."""
        assert self.folder is not None
        if "/" in name:
            self.folder.make_folders(name.rpartition("/")[0])

    def refused(self, repository: Repository, scope: str, app: str) -> list[str]:
        """The states of tokens that the server refused, or that were to be forgotten, the newest last."""
        return [state for state, expires in self._refusals(repository, scope, app) if expires > time.time()]

    def _refusals(self, repository: Repository, scope: str, app: str) -> list[tuple[str, int]]:
        data = None if self.folder is None else self.folder.read(self.name(repository, scope, app) + _REFUSED)
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
        until = int(time.time()) + _A_DAY if expires is None else expires
        kept = [one for one in self._refusals(repository, scope, app) if one[0] != state and one[1] > time.time()]
        lines = [f"{one} {end}\n" for one, end in [*kept, (state, until)][-_REFUSALS:]]
        try:
            self.write(self.name(repository, scope, app) + _REFUSED, "".join(lines).encode())
        except OSError as problem:
            trace(f"the refused token could not be noted: {problem.strerror}")

    def count_remint(self, repository: Repository, scope: str, app: str) -> None:
        """Note that a token is minted anew because the server refused one.

        Raises TooManyRefusedError where that has happened often enough.
        """
        name = self.name(repository, scope, app) + REMINTS
        assert self.folder is not None
        now = time.time()
        told = (self.folder.read(name) or b"").decode("ascii", "replace").split()
        recent = [one for one in told if one.isdigit() and 0 <= now - int(one) < _REMINTS_WITHIN]
        if len(recent) >= MOST_REMINTS:
            from git_credential_bbjwt.failures import TooManyRefusedError

            raise TooManyRefusedError(
                f"the server has refused {MOST_REMINTS} tokens for {repository.full_name} within "
                f"{_REMINTS_WITHIN // 60} minutes, so no more are asked for",
                "see what it says to git; git-credential-bbjwt doctor URL checks each step",
            )
        try:
            self.write(name, " ".join([*recent, str(int(now))]).encode())
        except OSError as problem:
            trace(f"the refusal could not be counted: {problem.strerror}")

    def remembered_uuid(self, repository: Repository) -> str | None:
        """The UUID that ``repository`` had when a token was last minted for it, within 30 days."""
        name = self._uuid_name(repository)
        if self.folder is None or not 0 <= self.folder.age(name) < _UUID_LIFE:
            return None
        uuid = (self.folder.read(name) or b"").decode("ascii", "replace")
        return uuid if is_uuid(uuid) else None

    def remember_uuid(self, repository: Repository, uuid: str) -> None:
        """Remember it. A cache that is not there stays so."""
        if self.folder is not None:
            try:
                self.write(self._uuid_name(repository), uuid.encode())
            except OSError as problem:
                trace(f"the repository's UUID could not be remembered: {problem.strerror}")

    def forget_uuid(self, repository: Repository) -> None:
        """Forget it: the repository is not there any more."""
        if self.folder is not None:
            self.folder.remove(self._uuid_name(repository))

    def _uuid_name(self, repository: Repository) -> str:
        return self.name(repository, "", "") + _UUID

    def is_first_today(self, name: str) -> bool:
        """Whether this was not asked within a day, of the same ``name``. Where that cannot be noted it never is."""
        if self.folder is None or (0 <= self.folder.age(name) < _A_DAY and self.folder.read(name) is not None):
            return False
        try:
            self.write(name, b"\n")
        except OSError:
            return False
        return True

    def keep(self, record: Record) -> None:
        """Put ``record`` in place of its predecessor. Raises OSError, and the predecessor is then as it was."""
        if self.folder is not None:
            self.write(self.name(record.repository, record.scope, record.app), record.to_bytes(), until=record.expires)

    def drop(self, record: Record) -> None:
        """Remove ``record``."""
        if self.folder is not None:
            self.folder.remove(self.name(record.repository, record.scope, record.app))

    def clear(self) -> None:
        """Remove every file that is named as ours, broken records and leftovers of killed processes too.

        The folders go as well, if nothing else is in them.
        """
        if self.folder is None:
            return
        for name in self.folder.names():
            if not _is_a_part(name):
                if _is_ours(name):
                    self.folder.remove(name)
                continue
            for leaf in self._leaves(name):
                self._clear_folder(leaf)
            self.folder.remove_folder(name)
        self._clear_folder(REFUSALS)
        self.folder.remove_itself()

    def _clear_folder(self, path: str) -> None:
        assert self.folder is not None
        for name in self.folder.names(path):
            if _is_ours(name):
                self.folder.remove(f"{path}/{name}")
        self.folder.remove_folder(path)

    def tidy(self) -> None:
        """Remove what can never be used again, so that the folder does not grow with every repository seen.

        A little at a time, by the files' times and from a place chosen by chance, so that the cost does not grow with
        the folder, and each file gets its turn.
        """
        if self.folder is None:
            return
        end = time.monotonic() + _TIDYING
        names = self.folder.names()
        self._remove_used_up("", [name for name in names if not _is_a_part(name)])
        self._remove_used_up(f"{REFUSALS}/", self.folder.names(REFUSALS))
        parts = [name for name in names if _is_a_part(name)]
        for part in _from_anywhere(parts):
            for leaf in _from_anywhere(self._leaves(part)):
                self._remove_used_up(f"{leaf}/", self.folder.names(leaf))
                if time.monotonic() > end:
                    return

    def _remove_used_up(self, folder: str, names: list[str]) -> None:
        assert self.folder is not None
        for name in names:
            # A record's file bears the time of its end.
            longest = 0 if "," in name and _BESIDE not in name else _UUID_LIFE if name.endswith(_UUID) else _A_DAY
            if _is_ours(name) and self.folder.age(folder + name) > longest:
                self.folder.remove(folder + name)

    def records(self) -> "Iterator[Record]":
        """All records, used up ones included."""
        if self.folder is not None:
            for name in self.folder.names():
                if _is_a_part(name):
                    yield from self._records_in(name, "")

    def records_of(self, host: str, workspace: str) -> "Iterator[Record]":
        """The records of one workspace, by the name its repositories were asked for with: a slug or a UUID."""
        if self.folder is not None:
            name = file_name(host, workspace, "")
            # Where the workspace's name is a long one the records' names do not begin with it.
            beginning = name if "," in name else ""
            for record in self._records_in(_part(f"{host}/{workspace}"), beginning):
                if (record.host, record.workspace) == (host, workspace):
                    yield record

    def _records_in(self, part: str, beginning: str) -> "Iterator[Record]":
        assert self.folder is not None
        for leaf in self._leaves(part):
            for name in self.folder.names(leaf):
                if _BESIDE not in name and (name.startswith(beginning) or "," not in name):
                    record = parse_record(self.folder.read(f"{leaf}/{name}") or b"")
                    if record is not None:
                        yield record

    def _leaves(self, part: str) -> list[str]:
        assert self.folder is not None
        return [f"{part}/{name}" for name in self.folder.names(part) if _is_a_part(name)]


def _from_anywhere(names: list[str]) -> list[str]:
    """The same, beginning at a place that the clock chooses."""
    start = time.time_ns() // 1000 % len(names) if names else 0
    return names[start:] + names[:start]


def _is_a_part(name: str) -> bool:
    return len(name) == 2 and _HEX.issuperset(name)


def _is_ours(name: str) -> bool:
    """Whether a file is named as a record is, or as one of the files beside it, by this version or by 1.0."""
    record, beside, ending = name.partition(_BESIDE)
    if beside and ending not in _ENDINGS:
        return False
    if record in (LOOKUPS, ANNOUNCED) or record.count(",") == 4:
        return True
    digest, _, rest = record.partition(".")[0].partition("-")
    return len(digest) == 32 and len(rest) in (0, 16) and _HEX.issuperset(digest + rest)


_ENDINGS = {
    (ending + more).removeprefix(_BESIDE)
    for ending in ("", LOCK, MINTING, NAMED, REMINTS, _REFUSED, _UUID)
    for more in ("", NOT_YET)
}


def _open(path: str, *, create: bool) -> PrivateFolder | None:
    try:
        return PrivateFolder(path, create=create)
    except OSError as problem:
        if isinstance(problem, PermissionError) and problem.filename == path:
            warning(f"the folder {path} is not used, and tokens are not kept there: {problem.strerror}")
        elif create or not isinstance(problem, FileNotFoundError):
            trace(f"no token cache in {path}: {problem.strerror}")
        return None


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
