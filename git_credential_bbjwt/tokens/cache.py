"""The token cache: its folders, and small files in addition to the tokens."""

from git_credential_bbjwt.core.files import user_cache_folder
from git_credential_bbjwt.core.output import trace
from git_credential_bbjwt.core.record import first_usable, is_shared_memory, token_paths, usable
from git_credential_bbjwt.system.private_folder import PrivateFolder


class TokenCache:
    """The token cache of this user, or of a broker. A call opens it once and passes it on.

    ``tokens`` is the folder of the records, None if no token can be kept. ``notes`` is the folder of locks and
    refusals: the same folder, or the user's cache folder if there is no folder for tokens. ``uuids`` is the folder of
    the repositories' UUIDs, which are not secret and are kept on disk.
    """

    def __init__(
        self,
        tokens: PrivateFolder | None,
        notes: PrivateFolder | None,
        uuids: PrivateFolder | None,
        *,
        is_brokers: bool = False,
        keeps_workspace_tokens: bool = True,
    ) -> None:
        self.tokens = tokens
        self.notes = notes
        self.uuids = uuids
        self.is_brokers = is_brokers
        #: Whether ``tokens`` may have tokens that open a workspace. It may not if other containers share the folder.
        self.keeps_workspace_tokens = keeps_workspace_tokens

    @classmethod
    def open(cls, *, create: bool, is_brokers: bool = False, operators_folder: str | None = None) -> "TokenCache":
        """Open the first folders that can be used; with ``create``, make missing folders.

        A broker does not share slots and locks with its clients. ``operators_folder`` is the absolute path of the
        folder that a broker's operator chose for all files, in memory or on a disk; None if the operator chose none.
        """

        def open_folder(path: str) -> PrivateFolder:
            return PrivateFolder(path, create=create)

        tokens = first_usable(token_paths(operators_folder), open_folder, create=create)
        on_disk = user_cache_folder() if operators_folder is None else operators_folder
        uuids = tokens
        if on_disk is not None and (tokens is None or tokens.path != on_disk):
            uuids = first_usable(iter([on_disk]), open_folder, create=create)
        is_shared = tokens is not None and is_shared_memory(tokens.path)
        return cls(
            tokens,
            tokens or uuids,
            uuids,
            is_brokers=is_brokers,
            keeps_workspace_tokens=not is_shared or is_brokers,
        )

    def make_notes(self) -> PrivateFolder | None:
        """Return the folder of the notes; make it if it is missing, because refusals are kept even without tokens."""
        if self.notes is None and not self.is_brokers:  # A broker has already tried to make its folder.
            self.notes = TokenCache.open(create=True).notes
        return self.notes

    def read(self, name: str) -> bytes | None:
        """Return the content of a file among the notes; None if there is none."""
        return None if self.notes is None else self.notes.read(name)

    def age(self, name: str) -> float | None:
        """Return the seconds since a file among the notes was written.

        None if there is none, or if its time is in the future.
        """
        if self.read(name) is None:
            return None
        assert self.notes is not None
        age = self.notes.age(name)
        return age if age >= 0 else None

    def write(self, name: str, data: bytes) -> None:
        """Write a file among the notes. Raises OSError."""
        if self.notes is None:
            raise FileNotFoundError(2, "there is no folder for it")
        write(self.notes, name, data)

    def note(self, name: str, data: bytes = b"\n") -> None:
        """Do the same as `write`, but do without the file if it cannot be written."""
        try:
            self.write(name, data)
        except OSError as problem:
            trace(f"cannot write {name} in the token cache: {problem.strerror}")

    def remove(self, name: str) -> None:
        """Remove a file among the notes, if there is one; do without that if it cannot be removed."""
        if self.notes is not None:
            try_to_remove(self.notes, name)

    def close(self) -> None:
        """Close the folders, for a process that opens many caches."""
        for folder in self.folders():
            folder.close()

    def folders(self) -> list[PrivateFolder]:
        """Return each folder of this cache once."""
        unique = {folder.path: folder for folder in (self.tokens, self.notes, self.uuids) if folder is not None}
        return list(unique.values())


def write(folder: PrivateFolder, name: str, data: bytes, *, until: float | None = None) -> None:
    """Write the file ``name`` in ``folder``; ``until``, its end in Unix time, becomes its time. Raises OSError."""
    if "/" in name:
        folder.make_folders(name.rpartition("/")[0])
    folder.write_many({name: data}, date=until)


def try_to_remove(folder: PrivateFolder, name: str) -> None:
    """Remove the file ``name`` in ``folder``, if there is one; do without that if it cannot be removed."""
    try:
        folder.remove(name)
    except OSError as problem:
        trace(f"cannot remove {name} in the token cache: {problem.strerror}")


def every_folder() -> list[PrivateFolder]:
    """Return each existing folder of this user's caches, for commands that drop tokens from all of them."""
    on_disk = user_cache_folder()
    paths = list(dict.fromkeys([*token_paths(), *([on_disk] if on_disk else [])]))
    return list(usable(iter(paths), lambda path: PrivateFolder(path, create=False)))
