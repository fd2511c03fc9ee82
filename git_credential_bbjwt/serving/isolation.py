"""Isolation of a broker from its client: nothing of the client's environment, folder or terminal is used.

sshd passes variables on if ``AcceptEnv`` says so (sshd_config(5)), so a client could otherwise choose a proxy for the
broker's JWTs, a folder of its own for the broker's limits, or the ``git`` that the broker runs.
"""

import contextlib
import os
import pwd
import signal

from git_credential_bbjwt.core.failures import UsageError
from git_credential_bbjwt.core.files import APP_NAME, why_not_trusted

_KEPT = ("LANG", "TZ", "SSH_CONNECTION", "SSH_USER_AUTH")
_KEPT_PREFIX = "LC_"

# Set by systemd (systemd.exec(5)). sshd sets SSH_CONNECTION after a client's variables, so a client cannot pass for a
# process that systemd started.
_KEPT_WITHOUT_SSH = ("CREDENTIALS_DIRECTORY", "RUNTIME_DIRECTORY", "CACHE_DIRECTORY", "STATE_DIRECTORY")

_BEHIND_SUDO = ("SUDO_UID", "DOAS_USER", "PKEXEC_UID")

_USUAL_PATH = "/usr/bin:/bin"


def isolate() -> None:
    """Drop the client's environment, and leave its folder, terminal and umask. To be called before anything is read.

    Raises UsageError behind sudo, doas, pkexec and a set-user-ID program: their caller owns the limits, signals and
    standard error of the process.
    """
    if any(name in os.environ for name in _BEHIND_SUDO) or os.getuid() != os.geteuid():
        raise UsageError(
            "serve does not run behind sudo or doas, because the caller controls such a process",
            "have systemd listen at a socket (Accept=yes), and ask there: --broker unix:/run/bbjwt/socket",
        )
    environment = _environment()
    os.environ.clear()
    os.environ.update(environment)
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTSTP):
        signal.signal(number, signal.SIG_IGN)
    os.chdir("/")
    os.umask(0o077)
    try:
        os.setsid()
    except PermissionError:  # The leader of a process group cannot, but it can give up the terminal.
        _leave_terminal()


def _environment() -> dict[str, str]:
    """Return the variables that may be used, and those that follow from the password database."""
    kept = {name: value for name, value in os.environ.items() if name in _KEPT or name.startswith(_KEPT_PREFIX)}
    if "SSH_CONNECTION" not in kept:
        kept |= {name: os.environ[name] for name in _KEPT_WITHOUT_SSH if name in os.environ}
    entries = [entry for entry in os.environ.get("PATH", "").split(os.pathsep) if _is_own_folder(entry)]
    kept["PATH"] = os.pathsep.join(entries) or _USUAL_PATH
    with contextlib.suppress(KeyError):  # A container may run as a user that its password database does not have.
        kept["HOME"] = pwd.getpwuid(os.geteuid()).pw_dir
    state = kept.get("STATE_DIRECTORY", "").split(":")[0]
    if os.path.isabs(state) and os.path.isdir(f"{state}/{APP_NAME}"):
        kept["XDG_CONFIG_HOME"] = state
    return kept


def _leave_terminal() -> None:
    import fcntl
    import termios

    try:
        terminal = os.open("/dev/tty", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return
    with contextlib.suppress(OSError):
        fcntl.ioctl(terminal, termios.TIOCNOTTY)
    os.close(terminal)


def _is_own_folder(path: str) -> bool:
    """Return whether nobody but root and this user can write the folder ``path``, or replace it."""
    try:
        return os.path.isabs(path) and os.path.isdir(path) and why_not_trusted(path, strict=True) is None
    except OSError:
        return False
