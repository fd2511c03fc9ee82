"""The token cache beyond finding a record: keeping and dropping, what is kept beside a record, and tidying up."""

import time
from collections.abc import Iterator

from git_credential_bbjwt.core.failures import TooManyRefusedError
from git_credential_bbjwt.core.output import trace
from git_credential_bbjwt.core.repository import Repository, is_uuid
from git_credential_bbjwt.system.folder import file_name
from git_credential_bbjwt.system.private_folder import NOT_YET, PrivateFolder, remove_if_empty
from git_credential_bbjwt.tokens.folders import Records, part_of, usable_folders
from git_credential_bbjwt.tokens.record import Record, parse_record

#: Seconds for which a refused token is named to a broker where its end is not known, and after which a file beside the
#: records is a leftover.
_A_DAY = 86_400

# Seconds that removing what is used up may take each time.
_TIDYING = 0.002

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

#: Begin the names of the files that count a broker's look-ups: those by UUIDs, and those that find nothing.
LOOKUPS = "lookups"
MISSES = "misses"

#: How many of each there may be in a minute, and so how many files.
SLOTS = 20

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


class TokenCache(Records):
    """The records of this user, and what is kept beside them."""

    folder: PrivateFolder | None

    @classmethod
    def open(cls, *, create: bool) -> "TokenCache":
        """The one in the first folder that can be used; ``create`` makes it where there is none."""
        folders = usable_folders(lambda path: PrivateFolder(path, create=create), made=create)
        return cls(next(folders, None))

    @classmethod
    def every_folder(cls) -> "list[TokenCache]":
        """One for each folder there is, for who means to drop records wherever they are."""
        return [cls(folder) for folder in usable_folders(lambda path: PrivateFolder(path, create=False))]

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
        return [fingerprint for fingerprint, expires in self._refusals(repository, scope, app) if expires > time.time()]

    def _refusals(self, repository: Repository, scope: str, app: str) -> list[tuple[str, int]]:
        data = None if self.folder is None else self.folder.read(self.name(repository, scope, app) + _REFUSED)
        found = []
        for line in (data or b"").decode("ascii", "replace").splitlines():
            fingerprint, _, expires = line.partition(" ")
            if expires.isdigit():
                found.append((fingerprint, int(expires)))
        return found

    def note_refused(self, repository: Repository, scope: str, app: str, fingerprint: str, expires: int | None) -> None:
        """Remember until ``expires``, a Unix time, that this token is not wanted again; a day where it is not known."""
        if self.folder is None:
            return
        until = int(time.time()) + _A_DAY if expires is None else expires
        kept = [one for one in self._refusals(repository, scope, app) if one[0] != fingerprint and one[1] > time.time()]
        lines = [f"{one} {end}\n" for one, end in [*kept, (fingerprint, until)][-_REFUSALS:]]
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
        remove_if_empty(self.folder.path)

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

    def records(self) -> Iterator[Record]:
        """All records, used up ones included."""
        if self.folder is not None:
            for name in self.folder.names():
                if _is_a_part(name):
                    yield from self._records_in(name, "")

    def records_of(self, host: str, workspace: str) -> Iterator[Record]:
        """The records of one workspace, by the name its repositories were asked for with: a slug or a UUID."""
        if self.folder is not None:
            name = file_name(host, workspace, "")
            # Where the workspace's name is a long one the records' names do not begin with it.
            beginning = name if "," in name else ""
            for record in self._records_in(part_of(f"{host}/{workspace}"), beginning):
                if (record.host, record.workspace) == (host, workspace):
                    yield record

    def _records_in(self, part: str, beginning: str) -> Iterator[Record]:
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
    if record in (LOOKUPS, MISSES) and len(ending) == 2 and ending.isdigit():
        return True
    if beside and ending not in _ENDINGS:
        return False
    if record == ANNOUNCED or record.count(",") == 4:
        return True
    digest, _, rest = record.partition(".")[0].partition("-")
    return len(digest) == 32 and len(rest) in (0, 16) and _HEX.issuperset(digest + rest)


_ENDINGS = {
    (ending + more).removeprefix(_BESIDE)
    for ending in ("", LOCK, MINTING, NAMED, REMINTS, _REFUSED, _UUID)
    for more in ("", NOT_YET)
}
