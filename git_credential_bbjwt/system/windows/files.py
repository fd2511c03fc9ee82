"""What Windows has its own way for: folders and owners by access rules, whole-file writes, standard descriptors.

Modes say nothing there. A file or folder counts as this user's own where its owner is this user, the system or the
administrators, and no access rule lets anybody else change it ("Access Control Lists", "How Access Checks Work").
"""

import ctypes
import msvcrt
import os
import stat
import sys
import time
from collections.abc import Callable, Iterator
from ctypes import wintypes
from typing import TypeVar

assert sys.platform == "win32"

_Result = TypeVar("_Result")

#: Ends the name of what is not yet a file of ours.
NOT_YET = "~new"

# What we write is a few kilobytes; whatever is larger was not written by us.
_MAX_BYTES = 8 * 1024 * 1024

# Another process that reads a file, or a virus scanner, holds up who would replace it. Seconds.
_PATIENCE = 2.0

# "Access Mask Format", "File Access Rights Constants".
_READ_DATA, _WRITE_DATA, _APPEND_DATA, _DELETE_CHILD = 0x1, 0x2, 0x4, 0x40
_CHANGE = 0x10000 | 0x40000 | 0x80000 | 0x10000000  # DELETE, WRITE_DAC, WRITE_OWNER, GENERIC_ALL
_WRITE = _CHANGE | _WRITE_DATA | _APPEND_DATA | 0x40000000  # GENERIC_WRITE
_READ = _READ_DATA | 0x80000000 | 0x10000000  # GENERIC_READ, GENERIC_ALL
_REPLACE = _CHANGE | _DELETE_CHILD

# "Well-known SIDs": the system, the administrators, the installer of Windows, the owner's own rights.
_TRUSTED = (
    "S-1-5-18",
    "S-1-5-32-544",
    "S-1-5-80-956008885-3418522649-1831038044-1853292631-2271478464",
    "S-1-3-4",
)

_INHERIT_ONLY = 0x8
_ALLOWS = (0x0, 0x5, 0x9, 0xB)  # ACCESS_ALLOWED_ACE_TYPE, and its variants

_advapi32 = ctypes.WinDLL("advapi32", use_last_error=True)
_kernel32 = ctypes.WinDLL("kernel32", use_last_error=True)
_kernel32.CreateFileW.restype = wintypes.HANDLE
_kernel32.CreateFileW.argtypes = (
    wintypes.LPCWSTR,
    wintypes.DWORD,
    wintypes.DWORD,
    ctypes.c_void_p,
    wintypes.DWORD,
    wintypes.DWORD,
    wintypes.HANDLE,
)
_kernel32.GetCurrentProcess.restype = wintypes.HANDLE
_kernel32.CloseHandle.argtypes = (wintypes.HANDLE,)
_kernel32.LocalFree.argtypes = (ctypes.c_void_p,)
_advapi32.GetSecurityInfo.argtypes = (wintypes.HANDLE, ctypes.c_int, wintypes.DWORD) + (ctypes.c_void_p,) * 5
_advapi32.OpenProcessToken.argtypes = (wintypes.HANDLE, wintypes.DWORD, ctypes.c_void_p)
_advapi32.GetTokenInformation.argtypes = (
    wintypes.HANDLE,
    ctypes.c_int,
    ctypes.c_void_p,
    wintypes.DWORD,
    ctypes.c_void_p,
)
_advapi32.GetLengthSid.argtypes = (ctypes.c_void_p,)


class PrivateFolder:
    """A folder that is this user's own. What the other systems' does, where access rules stand for modes.

    Who may read there is for the rules of the user's profile to say. One that others can change, or that is reached
    through another user's link, is refused.
    """

    __slots__ = ("path",)

    def __init__(self, path: str, *, create: bool = False, mode: int = 0o700) -> None:  # noqa: ARG002  # access rules count
        """Open ``path``, making it (and the folders above it) first if ``create`` is set.

        Raises OSError: FileNotFoundError where there is none, PermissionError where others can change it.
        """
        self.path = path
        if create:
            os.makedirs(path, exist_ok=True)
        found = os.lstat(path)
        if not stat.S_ISDIR(found.st_mode):
            raise NotADirectoryError(20, "it is not a folder", path)
        why_not = _why_not(path, _REPLACE) or _link_of_others(path)
        if why_not:
            raise PermissionError(1, f"{why_not}; see its access rules: icacls {path}", path)

    def close(self) -> None:
        """Nothing is held open here."""

    def read(self, name: str, *, others_may_read: bool = False) -> bytes | None:  # noqa: ARG002  # as the folder's rules have it
        """Return the file's bytes, or None where there is none that this user or the administrators have written."""
        try:
            fd = _patiently(lambda: open_to_read(self._at(name), through_links=False))
        except OSError:
            return None
        try:
            found = os.fstat(fd)
            if not stat.S_ISREG(found.st_mode) or why_not_ours(fd, found):
                return None
            data = os.read(fd, _MAX_BYTES)
            return data if len(data) == found.st_size else None
        except OSError:
            return None
        finally:
            os.close(fd)

    def write(
        self, name: str, data: bytes, *, mode: int = 0o600, durable: bool = False, date: float | None = None
    ) -> None:
        """Put ``data`` in place of the file in one step. Only one process at a time may write the same name.

        ``durable`` also waits for the disk. ``date`` is the Unix time that the file bears, by default the present one.
        Raises OSError; the old file is then as it was.
        """
        self.write_many({name: data}, mode=mode, durable=durable, date=date)

    def write_many(
        self,
        files: "dict[str, bytes]",
        *,
        mode: int = 0o600,  # noqa: ARG002  # the folder's rules count
        durable: bool = False,
        date: float | None = None,
    ) -> None:
        """The same for several files, each in one step of its own."""
        made: list[str] = []
        try:
            for name, data in files.items():
                new = self._at(name + NOT_YET)
                self.remove(name + NOT_YET)
                fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_BINARY | os.O_NOINHERIT)
                made.append(name + NOT_YET)
                try:
                    view = memoryview(data)
                    while view:
                        view = view[os.write(fd, view) :]
                    if durable:
                        os.fsync(fd)
                finally:
                    os.close(fd)
                if date is not None:
                    os.utime(new, (date, date))
            for name in files:
                _replace(self._at(name + NOT_YET), self._at(name))
                made.remove(name + NOT_YET)
        except BaseException:
            for new in made:
                self.remove(new)
            raise

    def make_folders(self, path: str) -> None:
        """Make the folder ``path`` within this one, and those between, where they are not there."""
        os.makedirs(self._at(path), exist_ok=True)

    def age(self, name: str) -> float:
        """Seconds since the time that the file bears, negative for one to come; 0 where there is no file."""
        try:
            born = os.lstat(self._at(name)).st_mtime
        except FileNotFoundError:
            return 0.0
        return time.time() - born  # In this order: who writes it just now must not make it one to come.

    def remove(self, name: str) -> None:
        """Remove the file, if there is one."""
        try:
            _patiently(lambda: os.unlink(self._at(name)))
        except FileNotFoundError:
            pass

    def remove_folder(self, name: str) -> None:
        """Remove the folder ``name`` within this one if nothing is in it."""
        try:
            os.rmdir(self._at(name))
        except OSError:
            pass

    def rename_folder(self, old: str, new: str) -> None:
        """Give the folder ``old`` within this one the name ``new``. Raises OSError."""
        _patiently(lambda: os.rename(self._at(old), self._at(new)))

    def names(self, below: str = ".") -> list[str]:
        """The names of all that is in the folder, or in the folder ``below`` it; none where that is not there."""
        try:
            return os.listdir(self._at(below))
        except OSError:
            return []

    def _at(self, name: str) -> str:
        # In this form a path may be longer than 260 characters ("Maximum Path Length Limitation").
        path = os.path.abspath(os.path.join(self.path, name))
        return path if path.startswith("\\\\") else "\\\\?\\" + path


def _patiently(act: "Callable[[], _Result]") -> "_Result":
    """Do it again while another process has the file open."""
    end = time.monotonic() + _PATIENCE
    while True:
        try:
            return act()
        except PermissionError:
            if time.monotonic() > end:
                raise
            time.sleep(0.005)


def _replace(new: str, name: str) -> None:
    _patiently(lambda: os.replace(new, name))


def open_to_read(path: str, *, through_links: bool = True) -> int:
    """Open a file for reading. Raises OSError, ValueError."""
    if not through_links and os.path.islink(path):
        raise OSError(40, "it is a link", path)
    return os.open(path, os.O_RDONLY | os.O_BINARY | os.O_NOINHERIT)


def open_to_append(path: str) -> int:
    """Open a file at its end; it is made where it is not there. Raises OSError."""
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_BINARY | os.O_NOINHERIT)


def why_not_ours(fd: int, found: os.stat_result) -> str | None:  # noqa: ARG001  # other systems ask for the mode
    """Why others than this user and the administrators may have chosen what is in an open file; None where not."""
    owner, rules = _security(msvcrt.get_osfhandle(fd))
    if owner not in _trusted():
        return f"it belongs to another user ({owner})"
    other = next(_others_with(rules, _WRITE), None)
    return None if other is None else f"others can write to it ({other})"


def others_can_read(fd: int, found: os.stat_result) -> bool:  # noqa: ARG001  # as above
    """Whether others than this user and the administrators can read an open file."""
    _, rules = _security(msvcrt.get_osfhandle(fd))
    return next(_others_with(rules, _READ), None) is not None


def is_administrator() -> bool:
    """Whether this process may do what administrators may."""
    return bool(ctypes.windll.shell32.IsUserAnAdmin())


def is_private(path: str) -> bool:
    """Whether ``path`` is a real folder, not a link, that is this user's own."""
    try:
        found = os.lstat(path)
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and not _why_not(path, _REPLACE)


def why_not_trusted(path: str) -> str:
    """Why what stands in the folder ``path`` cannot be trusted to be this user's choice; empty where it can.

    Raises FileNotFoundError where there is no such folder, OSError where it cannot be looked at.
    """
    return why_not_itself_trusted(path) or _link_of_others(path)


def why_not_itself_trusted(path: str) -> str:
    """The same for who already knows that the folder it is in is trusted."""
    if _is_link(os.lstat(path)):
        return "it is reached through a link"
    return _why_not(path, _REPLACE)


def write_as_git_reads() -> None:
    """Have what is written to the standard descriptors be what git reads: no carriage return, UTF-8."""
    for fd in (0, 1, 2):
        msvcrt.setmode(fd, os.O_BINARY)
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.reconfigure(encoding="utf-8", errors="backslashreplace", newline="\n")  # type: ignore[union-attr]  # none is replaced


def _is_link(found: os.stat_result) -> bool:
    return bool(found.st_file_attributes & stat.FILE_ATTRIBUTE_REPARSE_POINT)


def _link_of_others(path: str) -> str:
    """Says which link of another user's leads to ``path``, if one does."""
    above = os.path.abspath(path)
    while above != os.path.dirname(above):
        if _is_link(os.lstat(above)) and _security_of(above)[0] not in _trusted():
            return f"it is reached through {above}, another user's link"
        above = os.path.dirname(above)
    return ""


def _why_not(path: str, rights: int) -> str:
    owner, rules = _security_of(path)
    if owner not in _trusted():
        return f"it belongs to another user ({owner})"
    other = next(_others_with(rules, rights), None)
    return "" if other is None else f"others can change it ({other})"


def _others_with(rules: bytes | None, rights: int) -> Iterator[str]:
    """Yield who, other than those trusted, has one of ``rights`` by the access rules; None are everybody's."""
    if rules is None:
        yield "S-1-1-0"
        return
    position = 8
    for _ in range(int.from_bytes(rules[4:6], "little")):
        kind, flags = rules[position], rules[position + 1]
        size = int.from_bytes(rules[position + 2 : position + 4], "little")
        mask = int.from_bytes(rules[position + 4 : position + 8], "little")
        who = _name_of(rules[position + 8 : position + size])
        if kind in _ALLOWS and not flags & _INHERIT_ONLY and mask & rights and who not in _trusted():
            yield who
        position += size


def _security_of(path: str) -> "tuple[str, bytes | None]":
    """Owner and access rules of what stands at ``path``, of a link those of the link itself. Raises OSError."""
    read_control, share_all, existing, backup_and_link = 0x20000, 0x7, 3, 0x02000000 | 0x00200000
    handle = _kernel32.CreateFileW(path, read_control, share_all, None, existing, backup_and_link, None)
    if handle == wintypes.HANDLE(-1).value:
        raise ctypes.WinError(ctypes.get_last_error())
    try:
        return _security(handle)
    finally:
        _kernel32.CloseHandle(handle)


def _security(handle: int) -> "tuple[str, bytes | None]":
    """Owner and access rules of an open file. Raises OSError."""
    a_file, owner_and_rules = 1, 0x1 | 0x4
    owner, rules, whole = ctypes.c_void_p(), ctypes.c_void_p(), ctypes.c_void_p()
    failure = _advapi32.GetSecurityInfo(
        handle,
        a_file,
        owner_and_rules,
        ctypes.byref(owner),
        None,
        ctypes.byref(rules),
        None,
        ctypes.byref(whole),
    )
    if failure:
        raise ctypes.WinError(failure)
    try:
        name = _name_of(_sid(owner.value))
        if not rules.value:
            return name, None
        size = int.from_bytes(ctypes.string_at(rules.value + 2, 2), "little")
        return name, ctypes.string_at(rules.value, size)
    finally:
        _kernel32.LocalFree(whole)


def _sid(address: "int | None") -> bytes:
    return ctypes.string_at(address, _advapi32.GetLengthSid(address)) if address else bytes(8)


def _name_of(sid: bytes) -> str:
    """An account's identifier as Windows writes it ("SID Components")."""
    parts = [int.from_bytes(sid[start : start + 4], "little") for start in range(8, 8 + 4 * sid[1], 4)]
    return "-".join(["S", str(sid[0]), str(int.from_bytes(sid[2:8], "big")), *map(str, parts)])


def _trusted() -> "tuple[str, ...]":
    global _known
    if not _known:
        token, size, query, user = wintypes.HANDLE(), wintypes.DWORD(), 0x8, 1
        if not _advapi32.OpenProcessToken(_kernel32.GetCurrentProcess(), query, ctypes.byref(token)):
            raise ctypes.WinError(ctypes.get_last_error())
        try:
            buffer = ctypes.create_string_buffer(256)
            if not _advapi32.GetTokenInformation(token, user, buffer, len(buffer), ctypes.byref(size)):
                raise ctypes.WinError(ctypes.get_last_error())
            _known = (_name_of(_sid(ctypes.c_void_p.from_buffer(buffer).value)), *_TRUSTED)
        finally:
            _kernel32.CloseHandle(token)
    return _known


_known: "tuple[str, ...]" = ()
