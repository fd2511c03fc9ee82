"""What every wing stands on: what is ours to read, where it is, and names made of parts.

What an operating system does in its own way is chosen here and in `private_folder`, `child_process`, `shell`, `lock`,
`core_dumps`, `terminal` and `run_folder`, once in each. Elsewhere than on Windows another user of the machine may have
prepared a folder, a symbolic link or a file in the place of ours. So nothing is done by path after the check: every
file is opened relative to the checked folder's own descriptor.
"""

import os
import stat
import sys

__all__ = [
    "APP_NAME",
    "EXEC_FOLDER_VARIABLE",
    "OwnFolder",
    "exec_folder",
    "file_name",
    "git_home",
    "home_is_anothers",
    "is_administrator",
    "is_anothers",
    "is_private",
    "open_to_append",
    "open_to_read",
    "others_can_read",
    "site_config_folder",
    "user_cache_folder",
    "user_config_folder",
    "user_runtime_base",
    "why_no_home",
    "why_not_itself_trusted",
    "why_not_ours",
    "why_not_trusted",
]

if sys.platform == "win32":
    from git_credential_bbjwt.system.windows import PrivateFolder as OwnFolder
    from git_credential_bbjwt.system.windows import (
        is_administrator,
        is_private,
        open_to_append,
        open_to_read,
        others_can_read,
        why_not_itself_trusted,
        why_not_ours,
        why_not_trusted,
    )

else:
    # What we write is a few kilobytes; whatever is larger was not written by us.
    _MAX_BYTES = 8 * 1024 * 1024

    #: How a folder is opened: not through a link.
    A_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

    class OwnFolder:
        """An open folder that belongs to this user with mode 0700, to read in. ``fd`` is its descriptor.

        A file's name may lead through folders within it: only this user can have made those.
        """

        __slots__ = ("fd", "path")

        def __init__(self, path: str, *, mode: int = 0o700) -> None:
            """Open ``path``.

            ``mode`` 0755 is for the one folder everybody may read, the system registry's; only its owner writes there.
            Raises OSError: FileNotFoundError where there is none, PermissionError where it is not this user's alone; an
            existing folder's mode is never changed.
            """
            self.path = path
            self.fd = os.open(path, A_FOLDER)
            try:
                found = os.fstat(self.fd)
                why_not = ""
                if found.st_uid != os.geteuid():
                    why_not = "it belongs to another user"
                elif found.st_mode & 0o777 & ~mode:
                    # Not mended: somebody gave it that mode, or put a folder of his own in the place of ours.
                    why_not = f"others can enter it; run: chmod {mode:o} {path}"
                if why_not:
                    from errno import EPERM  # Its table takes a hundredth of a start.

                    raise PermissionError(EPERM, why_not, path)
            except BaseException:
                os.close(self.fd)
                raise

        def close(self) -> None:
            """Close the descriptor; the object is of no use afterwards."""
            os.close(self.fd)

        def read(self, name: str, *, others_may_read: bool = False) -> bytes | None:
            """Return the file's bytes, or None where there is none that this user alone can have written, and read."""
            try:
                fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=self.fd)
            except OSError:
                return None
            try:
                found = os.fstat(fd)
                if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid():
                    return None
                if found.st_mode & (0o022 if others_may_read else 0o077):
                    return None
                if found.st_size > _MAX_BYTES:
                    return None
                data = os.read(fd, found.st_size + 1)
                return data if len(data) == found.st_size else None
            except OSError:
                return None
            finally:
                os.close(fd)

    def why_not_trusted(path: str) -> str:
        """Why what stands in the folder ``path`` cannot be trusted to be this user's choice or root's; empty if it can.

        Raises FileNotFoundError where there is no such folder, OSError where it cannot be looked at.
        """
        why_not = why_not_itself_trusted(path)
        if why_not:
            return why_not
        above = os.path.dirname(path)
        while True:
            found = os.lstat(above)
            if stat.S_ISLNK(found.st_mode):  # What it leads to counts.
                above = os.path.realpath(above, strict=True)
                continue
            if found.st_uid not in (0, os.geteuid()) or (found.st_mode & 0o002 and not found.st_mode & stat.S_ISVTX):
                return f"others can replace its folder: see who owns {above}, and its mode"
            if above == os.path.dirname(above):
                return ""
            above = os.path.dirname(above)

    def why_not_itself_trusted(path: str) -> str:
        """The same for who already knows that the folder it is in is trusted."""
        found = os.lstat(path)
        if stat.S_ISLNK(found.st_mode):
            return "it is reached through a link"
        if found.st_uid not in (0, os.geteuid()):
            return "its folder is another user's"
        return f"others can write to its folder; run: chmod go-w {path}" if found.st_mode & 0o022 else ""

    def is_private(path: str) -> bool:
        """Whether ``path`` is a real folder, not a link, that belongs to this user and that nobody else can enter."""
        try:
            found = os.lstat(path)
        except OSError:
            return False
        return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o077

    def open_to_read(path: str, *, through_links: bool = True) -> int:
        """Open a file for reading; a FIFO that somebody put there holds nobody up. Raises OSError, ValueError."""
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | (0 if through_links else os.O_NOFOLLOW))

    def open_to_append(path: str) -> int:
        """Open a file of mode 0600 at its end, not through a link; it is made where it is not there. Raises OSError."""
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        return os.open(path, flags, 0o600)

    def why_not_ours(fd: int, found: os.stat_result) -> str | None:  # noqa: ARG001  # other systems ask for the rules
        """Why others than this user and root may have chosen what is in an open file; None where they cannot have."""
        if found.st_uid not in (0, os.geteuid()):
            return f"it belongs to another user (number {found.st_uid})"
        if found.st_mode & 0o022:
            return f"others can write to it (mode {found.st_mode & 0o777:04o})"
        return None

    def others_can_read(fd: int, found: os.stat_result) -> bool:  # noqa: ARG001  # as above
        """Whether others than its user and root can read a file.

        Where it is another's, it is by its group or an access control list that we are let in, on purpose: so do
        systemd with a credential and Kubernetes with a secret.
        """
        return bool(found.st_mode & (0o044 if found.st_uid == os.geteuid() else 0o004))

    def is_administrator() -> bool:
        """Whether this is root."""
        return os.geteuid() == 0


# Where files live: the folders platformdirs names, found without importing it where that is a matter of one rule.
# Importing platformdirs costs more than a whole Python start, and a cached answer needs three of its folders. On Linux
# and the BSDs they are the XDG Base Directory specification's, which fits in here; a test holds these functions to
# platformdirs' answers. Elsewhere platformdirs is asked.

#: Distribution, keyring service and folder name.
APP_NAME = "git-credential-bbjwt"

#: Names, for the children of `exec`, the folder that their tokens are kept in.
EXEC_FOLDER_VARIABLE = "BBJWT_EXEC_FOLDER"

_XDG = sys.platform.startswith(("linux", "freebsd", "openbsd", "netbsd"))


def _home() -> str | None:
    """The user's home; None where there is none (it is not for us to make one), or where it is somebody else's."""
    home = os.environ.get("HOME", "")
    if sys.platform != "win32" and not home.startswith("/"):
        try:
            import pwd

            home = pwd.getpwuid(os.getuid()).pw_dir
        except (ImportError, KeyError):
            return None
    try:
        found = os.stat(home) if home.startswith("/") else None
    except OSError:
        return None
    if found is None or not stat.S_ISDIR(found.st_mode):
        return None
    return home if sys.platform == "win32" or found.st_uid in (0, os.geteuid()) else None


def _belongs_to_another(path: str) -> bool:
    """Whether ``path``, or the nearest folder above it that is there, belongs to neither this user nor root."""
    if sys.platform == "win32":
        return False
    while True:
        try:
            return os.stat(path).st_uid not in (0, os.geteuid())
        except OSError:
            above = os.path.dirname(path)
            if above == path:
                return False
            path = above


def home_is_anothers() -> bool:
    """Whether HOME is somebody else's, as for root under ``sudo -E``: nothing below it is ours to read or make."""
    return is_anothers("HOME")


def why_no_home() -> str:
    """Why there is no home folder to use, for an error; empty where it is just not there."""
    return ": HOME belongs to another user" if home_is_anothers() else ""


def is_anothers(variable: str) -> bool:
    """Whether ``variable`` names a home folder, or one of the XDG specification, that is somebody else's."""
    value = os.environ.get(variable, "")
    if sys.platform == "win32" or not value.startswith("/") or not (variable == "HOME" or variable.startswith("XDG_")):
        return False
    return any(_belongs_to_another(path) for path in value.split(":") if path.startswith("/"))


def _xdg(variable: str, below_home: str) -> str | None:
    base = os.environ.get(variable, "")
    if not base.startswith("/") or _belongs_to_another(base):  # The specification: relative paths are to be ignored.
        home = _home()
        if home is None:
            return None
        base = home.rstrip("/") + "/" + below_home
    return base + "/" + APP_NAME


def user_config_folder() -> str | None:
    """The folder of the user registry; None where the user has no home."""
    if _XDG:
        return _xdg("XDG_CONFIG_HOME", ".config")
    import platformdirs

    return platformdirs.user_config_dir(APP_NAME, appauthor=False)


def site_config_folder() -> str:
    """The folder of the system registry."""
    if _XDG:
        for base in os.environ.get("XDG_CONFIG_DIRS", "").split(":"):
            if base.startswith("/"):
                return base + "/" + APP_NAME
        return "/etc/xdg/" + APP_NAME
    import platformdirs

    return platformdirs.site_config_dir(APP_NAME, appauthor=False)


def user_cache_folder() -> str | None:
    """The folder of the token cache where there is no private runtime folder; None where the user has no home."""
    if _XDG:
        return _xdg("XDG_CACHE_HOME", ".cache")
    import platformdirs

    return platformdirs.user_cache_dir(APP_NAME, appauthor=False)


def user_runtime_base() -> str | None:
    """The folder that ought to be the user's runtime folder. Whether it is private to the user is not checked here.

    Only XDG systems have one: macOS keeps nothing in memory for a user, so its cache folder serves there.
    """
    if sys.platform == "win32" or not _XDG:
        return None
    if home_is_anothers():
        return None  # Under `sudo -E` the whole environment is another user's: tokens are not kept.
    base = os.environ.get("XDG_RUNTIME_DIR", "")
    return base if base.startswith("/") else f"/run/user/{os.geteuid()}"


def exec_folder() -> str | None:
    """The folder that `exec` made for the tokens of one run; None outside of such a run."""
    folder = os.environ.get(EXEC_FOLDER_VARIABLE, "")
    return folder if os.path.isabs(folder) else None


def git_home() -> str:
    """The folder that git looks for ``.gitconfig`` in (git-config(1), "FILES"; Git for Windows asks Windows)."""
    home = os.environ.get("HOME", "")
    if sys.platform == "win32" and not home:
        home = os.environ.get("HOMEDRIVE", "") + os.environ.get("HOMEPATH", "") or os.environ.get("USERPROFILE", "")
    return home.replace("\\", "/") if sys.platform == "win32" else home


# A host's colon and a scope's blank have stand-ins, for Windows knows neither at such a place in a name. No letter in
# upper case: there are file systems that take it for the lower one.
_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyz0123456789._-{}[]: ,")

# File systems stop at 255, and files beside this one have a longer name. Characters.
_LONGEST_NAME = 200


def file_name(*parts: str) -> str:
    """Return a name that no other list of two or more parts has."""
    name = ",".join(parts)
    if len(name) <= _LONGEST_NAME and _PLAIN.issuperset(name) and name.count(",") == len(parts) - 1:
        return name.replace(":", "=").replace(" ", "+")

    from git_credential_bbjwt.system.digest import digest

    return digest(*parts)
