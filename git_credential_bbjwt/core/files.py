"""The helper's files and folders: why they are trusted, and where they are.

A payload or a registry decides where JWTs are sent. An allow-list or a policy decides who gets tokens. So their content
must be the choice of this user or of root, who can do everything anyway. The content of a file is the choice of its
owner and of everybody who can write to it. The target of a path is the choice of the owners of all its folders and
links, and of everybody who can write to one of these folders; the sticky bit (/tmp) keeps them from replacing files of
others. On Windows none of this is checked, because a user's profile is private by default.

A folder that only this user can enter needs no such walk. But another user may have replaced the folder, or a folder
above it, by a link. So `OwnFolder` first opens the folder and then checks it, and every file is opened relative to the
descriptor of the checked folder, never by its path.

The folders have the names that platformdirs gives them. Importing platformdirs takes longer than a whole Python start,
and a cached answer needs three of its folders. On Linux and the BSDs this module follows the XDG Base Directory
specification itself; a test compares it with platformdirs. On other systems platformdirs is used.
"""

import os
import stat
import sys

#: Distribution, keyring service and folder name.
APP_NAME = "git-credential-bbjwt"

_XDG = sys.platform.startswith(("linux", "freebsd", "openbsd", "netbsd"))

# Number of links that are followed for one path; Linux has the same limit.
_MOST_LINKS = 40


def why_not_trusted(path: str, *, strict: bool = False) -> "tuple[str, str] | None":
    """Return the reason and the remedy if others can have chosen the target of ``path``; None if they cannot.

    ``strict`` is for the files of a broker: links may lead to them if each link belongs to this user or root, and no
    group may write to a folder. Otherwise ``path`` itself must not be a link, and the group of a folder above it may
    write to the folder, because some distributions have such folders. Raises OSError.
    """
    if sys.platform == "win32":
        return None
    if not strict and stat.S_ISLNK(os.lstat(path).st_mode):
        return f"{path} is a link", f"replace the link {path} with the file or folder itself"
    (itself, status), *above = reversed(_steps(path))
    why_not = why_not_trusted_itself(status, itself, name=itself)
    if why_not is not None:
        return why_not
    for step, found in above:
        writers = 0o022 if strict else 0o002
        if stat.S_ISDIR(found.st_mode) and found.st_mode & writers and _nothing_is_replaced_in(step, found):
            writers = 0
        why_not = why_not_trusted_itself(found, step, name=step, writers=writers)
        if why_not is not None:
            return why_not
    return None


def _nothing_is_replaced_in(folder: str, found: os.stat_result) -> bool:
    """Return whether a folder that others can write protects files from replacement: it is sticky or read-only.

    Kubernetes makes the folders of its ConfigMaps with mode 0777 and mounts them read-only (kubernetes issue 136032).
    """
    if sys.platform == "win32":
        return False
    return bool(found.st_mode & stat.S_ISVTX or os.statvfs(folder).f_flag & os.ST_RDONLY)


def why_not_trusted_itself(
    found: os.stat_result, path: str, *, name: str = "it", writers: int = 0o022
) -> "tuple[str, str] | None":
    """Do the same as `why_not_trusted` for ``path`` alone, without the folders above it. ``found`` is its status.

    ``name`` is its name in the reason. ``writers`` are the bits of its mode that must not be set.
    """
    if sys.platform == "win32":
        return None
    if not is_trusted_owner(found.st_uid, path):
        word = _shell_word(path)
        return (
            f"{name} belongs to another user (number {found.st_uid})",
            f"chown {os.geteuid()} {word} && chmod go-w {word}",
        )
    if found.st_mode & writers and not stat.S_ISLNK(found.st_mode):
        return f"others can write to {name} (mode {found.st_mode & 0o777:04o})", f"chmod go-w {_shell_word(path)}"
    return None


def _shell_word(path: str) -> str:
    from shlex import quote  # Slow to load, and seldom needed.

    return quote(path)


def is_trusted_owner(uid: int, path: str) -> bool:
    """Return whether ``uid``, which owns ``path``, is this user or root."""
    if sys.platform == "win32" or uid in (0, os.geteuid()):
        return True
    from git_credential_bbjwt.core.user_namespace import belongs_to_outer_root  # Seldom needed.

    return belongs_to_outer_root(uid, path)


def is_private(path: str) -> bool:
    """Return whether ``path`` is a folder, not a link, that belongs to this user and that nobody else can enter."""
    try:
        found = os.lstat(path)
    except OSError:
        return False
    if sys.platform == "win32":
        return stat.S_ISDIR(found.st_mode)
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o077


def others_can_read(found: os.stat_result) -> bool:
    """Return whether users other than this one and root can read a file.

    If the file has another owner, its group is ignored: a group or an access control list then lets this user read the
    file on purpose, as with systemd's credentials and Kubernetes' secrets.
    """
    if sys.platform == "win32":
        return False
    return bool(found.st_mode & (0o044 if found.st_uid == os.geteuid() else 0o004))


def _steps(path: str) -> "list[tuple[str, os.stat_result]]":
    """Return each folder and link on the way to ``path``, an absolute path, and its status. Raises OSError."""
    place = "/"
    steps = [(place, os.lstat(place))]
    rest = path.split("/")[::-1]
    links = 0
    while rest:
        part = rest.pop()
        if part in ("", "."):
            continue
        if part == "..":
            place = os.path.dirname(place)
            continue
        step = place.rstrip("/") + "/" + part
        found = os.lstat(step)
        steps.append((step, found))
        if not stat.S_ISLNK(found.st_mode):
            place = step
            continue
        links += 1
        if links > _MOST_LINKS:
            from errno import ELOOP

            raise OSError(ELOOP, os.strerror(ELOOP), path)
        target = os.readlink(step)
        if target.startswith("/"):
            place = "/"
        rest += target.split("/")[::-1]
    return steps


if sys.platform == "win32":
    from git_credential_bbjwt.core import windows_files

    OwnFolder = windows_files.PrivateFolder
    open_to_append = windows_files.open_to_append
    open_to_read = windows_files.open_to_read

else:
    # Bytes. The helper writes a few kB, so a larger file is not the helper's.
    _MAX_BYTES = 8 * 1024 * 1024

    #: The flags that open a folder, but not through a link.
    A_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

    class OwnFolder:
        """An open folder that belongs to this user with mode 0700, for reading. ``fd`` is its descriptor.

        A file's name may include subfolders, because only this user can have made them.
        """

        __slots__ = ("fd", "path")

        def __init__(self, path: str, *, mode: int = 0o700) -> None:
            """Open ``path``.

            ``mode`` 0755 is for the system registry's folder, which everybody may read and only its owner may write.
            The mode of an existing folder is never changed. Raises OSError: FileNotFoundError if there is none,
            PermissionError if it is not this user's alone.
            """
            self.path = path
            self.fd = os.open(path, A_FOLDER)
            try:
                found = os.fstat(self.fd)
                why_not = ""
                if found.st_uid != os.geteuid():
                    why_not = "it belongs to another user"
                elif found.st_mode & 0o777 & ~mode:
                    # The mode is not corrected, because somebody chose it, or has replaced the folder.
                    why_not = f"others can enter it; run: chmod {mode:o} {_shell_word(path)}"
                if why_not:
                    from errno import EPERM  # Importing it takes 1 % of a start.

                    raise PermissionError(EPERM, why_not, path)
            except BaseException:
                os.close(self.fd)
                raise

        def close(self) -> None:
            """Close the descriptor. The object cannot be used afterwards."""
            os.close(self.fd)

        def read(self, name: str, *, others_may_read: bool = False) -> bytes | None:
            """Return the file's bytes; None if there is no file that only this user can write and read."""
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

    def open_to_read(path: str, *, through_links: bool = True) -> int:
        """Open a file for reading, without waiting if it is a FIFO. Raises OSError, ValueError."""
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | (0 if through_links else os.O_NOFOLLOW))

    def open_to_append(path: str) -> int:
        """Open a file at its end, not through a link; make it with mode 0600 if it is missing. Raises OSError."""
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        return os.open(path, flags, 0o600)


def read_file(path: str, most: int) -> bytes:
    """Return up to ``most`` bytes of a regular file. Raises OSError, ValueError."""
    # If this is a folder, `os.fdopen` would leave its descriptor open.
    with open(path, "rb", opener=lambda path, _: open_to_read(path)) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):  # A pipe may have nothing to read yet.
            raise OSError(0, "it is not a regular file", path)
        return file.read(most)


def _home() -> str | None:
    """Return the user's home; None if it does not exist or belongs to another user."""
    home = os.environ.get("HOME", "")
    if sys.platform != "win32" and not home.startswith("/"):
        try:
            import pwd

            home = pwd.getpwuid(os.getuid()).pw_dir
        except KeyError:
            return None
    try:
        found = os.stat(home) if home.startswith("/") else None
    except OSError:
        return None
    if found is None or not stat.S_ISDIR(found.st_mode):
        return None
    return home if is_trusted_owner(found.st_uid, home) else None


def _belongs_to_another(path: str) -> bool:
    """Return whether ``path``, or the nearest existing folder above it, belongs to neither this user nor root.

    ``path`` is absolute.
    """
    while True:
        try:
            return not is_trusted_owner(os.stat(path).st_uid, path)
        except OSError:
            path = os.path.dirname(path)


def home_is_anothers() -> bool:
    """Return whether HOME belongs to another user, as for root under ``sudo -E``.

    Nothing below such a HOME is read or created.
    """
    return is_anothers("HOME")


def why_no_home() -> str:
    """Return the reason for an error about a missing home folder; empty if the folder just does not exist."""
    return ": HOME belongs to another user" if home_is_anothers() else ""


def is_anothers(variable: str) -> bool:
    """Return whether ``variable`` names a home folder, or one of the XDG specification, of another user."""
    value = os.environ.get(variable, "")
    if sys.platform == "win32" or not value.startswith("/") or not (variable == "HOME" or variable.startswith("XDG_")):
        return False
    return any(_belongs_to_another(path) for path in value.split(":") if path.startswith("/"))


def _xdg(variable: str, below_home: str) -> str | None:
    base = os.environ.get(variable, "")
    if not base.startswith("/") or _belongs_to_another(base):  # The specification ignores relative paths.
        home = _home()
        if home is None:
            return None
        base = home.rstrip("/") + "/" + below_home
    return base + "/" + APP_NAME


def user_config_folder() -> str | None:
    """Return the folder of the user registry; None if the user has no home."""
    if _XDG:
        return _xdg("XDG_CONFIG_HOME", ".config")
    import platformdirs

    return platformdirs.user_config_dir(APP_NAME, appauthor=False)


def site_config_folder() -> str:
    """Return the folder of the system registry."""
    if _XDG:
        for base in os.environ.get("XDG_CONFIG_DIRS", "").split(":"):
            if base.startswith("/"):
                return base + "/" + APP_NAME
        return "/etc/xdg/" + APP_NAME
    import platformdirs

    return platformdirs.site_config_dir(APP_NAME, appauthor=False)


def user_cache_folder() -> str | None:
    """Return the folder of the files that are kept on disk; None if the user has no home."""
    if _XDG:
        return _xdg("XDG_CACHE_HOME", ".cache")
    import platformdirs

    return platformdirs.user_cache_dir(APP_NAME, appauthor=False)


def user_runtime_base() -> str | None:
    """Return the user's runtime folder. The caller must check that it is private to the user.

    Only XDG systems have one. macOS has no folder in memory for a user.
    """
    if sys.platform == "win32" or not _XDG:
        return None
    if home_is_anothers():
        return None  # Under `sudo -E` the environment belongs to another user, so no tokens are kept.
    base = os.environ.get("XDG_RUNTIME_DIR", "")
    return base if base.startswith("/") else f"/run/user/{os.geteuid()}"
