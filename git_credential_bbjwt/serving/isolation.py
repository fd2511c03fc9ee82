"""A broker stands on its own ground: nothing that the asker's environment, folder or terminal says counts.

Sites let sshd pass ``GIT_*`` on (sshd_config(5), ``AcceptEnv``), sudo keeps the folder and the limits, and so a
broker's JWT could go by an asker's proxy.
"""

import contextlib
import fcntl
import os
import stat

from git_credential_bbjwt.core.failures import UsageError

_KEPT = (
    "PATH",
    "USER",
    "LOGNAME",
    "LANG",
    "TZ",
    "DBUS_SESSION_BUS_ADDRESS",
    "CREDENTIALS_DIRECTORY",
    "SSH_CONNECTION",
    "SSH_USER_AUTH",
)
_KEPT_PREFIXES = ("LC_", "SUDO_")
_KEPT_WHERE_OWN = ("HOME", "XDG_")


def stand_on_own_ground() -> None:
    """Drop the asker's environment, leave the folder, the terminal and the umask. To be called before all else."""
    for name in list(os.environ):
        if name in _KEPT or name.startswith(_KEPT_PREFIXES):
            continue
        if name.startswith(_KEPT_WHERE_OWN) and all(map(_is_own, os.environ[name].split(os.pathsep))):
            continue
        del os.environ[name]
    os.chdir("/")
    os.umask(0o077)
    try:
        os.setsid()
    except PermissionError:  # The leader of a process group cannot; it can give up the terminal.
        _leave_terminal()


def _is_own(path: str) -> bool:
    """Whether ``path``, or the nearest folder above it, belongs to this user or root, who alone can write there."""
    if not path.startswith("/"):
        return False
    while True:
        try:
            found = os.stat(path)
        except OSError:
            path = os.path.dirname(path)
            continue
        writable = found.st_mode & 0o002 and not found.st_mode & stat.S_ISVTX
        return found.st_uid in (0, os.geteuid()) and not writable


def _leave_terminal() -> None:
    import termios

    try:
        terminal = os.open("/dev/tty", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return
    with contextlib.suppress(OSError):
        fcntl.ioctl(terminal, termios.TIOCNOTTY)
    os.close(terminal)


def check_own_file(path: str, option: str) -> None:
    """Raise UsageError for a file that somebody else than root or this user could have chosen the content of.

    Links are followed, for Kubernetes mounts secrets by them, where each link, folder and target belongs to root or
    this user and others cannot write it.
    """
    if not os.path.isabs(path):
        raise UsageError(f"{option} needs an absolute path")
    for _ in range(40):
        _check_one(path, option)
        above = path
        while above != "/":
            above = os.path.dirname(above)
            if os.path.islink(above):
                break
            _check_one(above, option)
        if os.path.islink(above):
            path = os.path.join(os.path.dirname(above), os.readlink(above), os.path.relpath(path, above))
        elif os.path.islink(path):
            path = os.path.join(os.path.dirname(path), os.readlink(path))
        else:
            return
        path = os.path.normpath(path)
    raise UsageError(f"{option} is reached through too many links")


def _check_one(path: str, option: str) -> None:
    try:
        found = os.lstat(path)
    except OSError as problem:
        raise UsageError(f"{option} cannot be read: {problem.strerror}") from problem
    shared = stat.S_ISDIR(found.st_mode) and found.st_mode & stat.S_ISVTX
    loose = not stat.S_ISLNK(found.st_mode) and found.st_mode & 0o022 and not shared
    if found.st_uid not in (0, os.geteuid()) or loose:
        raise UsageError(
            f"{option} is not used: {path} belongs to another user, or others can write to it",
            f"run: chown and chmod go-w on {path}",
        )
