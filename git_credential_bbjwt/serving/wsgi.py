"""The https broker for WSGI servers: ``gunicorn … git_credential_bbjwt.serving.wsgi:application``.

The configuration is the file that BBJWT_BROKER_CONFIG names. README.md in this folder is the operators' page.
"""

import contextlib
import errno
import os
import signal
import socket
import time

# First of all the libraries that check signatures, so that nothing can keep a part of them out of this process.
import cryptography.exceptions  # noqa: F401
import jwt  # noqa: F401

from git_credential_bbjwt.core.failures import CredentialError, UsageError
from git_credential_bbjwt.core.output import divert, error
from git_credential_bbjwt.serving.application import Application
from git_credential_bbjwt.system import core_dumps, shell

# gunicorn's own status for a worker that cannot start. The server then ends with this status and starts no other.
_CANNOT_START = 3

# The server's environment is the operator's, except for the variables that are about asking a broker.
_NOT_USED = ("BBJWT_BROKER", "BBJWT_JWT", "BBJWT_JWT_FILE")

# Seconds in which the other workers find that one has the same trouble, and for which they wait to be ended.
_BEFORE_THE_END = 1
_LONGEST_WAIT = 10


def _application() -> Application:
    """Return the application. Ends the process if the configuration cannot be used."""
    for name in _NOT_USED:
        os.environ.pop(name, None)
    os.chdir("/")
    os.umask(0o077)
    core_dumps.forbid()
    shell.owns_process = False
    divert(_log)
    # If the server ignores SIGCHLD, the kernel keeps no exit status of git and of commands.
    if signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN:
        with contextlib.suppress(ValueError):  # Only the main thread can change it.
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    path = os.environ.get("BBJWT_BROKER_CONFIG", "")
    try:
        if not os.path.isabs(path):
            raise UsageError(
                "BBJWT_BROKER_CONFIG does not name the broker's configuration",
                "set it to the absolute path of a TOML file",
            )
        return Application(path)
    except CredentialError as problem:
        if _is_first():
            error(problem.what, problem.hint)
        raise SystemExit(_CANNOT_START) from None


def _log(mark: str, text: str) -> None:
    """Write a line to the server's standard error, but no note, because that may be an installation command's words."""
    if mark:
        with contextlib.suppress(OSError):  # Nobody reads standard error.
            os.write(2, f"{mark}{text}\n".encode("utf-8", "backslashreplace"))


def _is_first() -> bool:
    """Return whether this is the first worker that cannot start; the others wait for the server to end them.

    If two workers end with this status at once, gunicorn 27.0.1 ends with a traceback and status 1 in every third case.
    """
    with contextlib.suppress(ValueError):  # In another than the main thread, no handler can be set, and none is needed.
        signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    with socket.socket(socket.AF_UNIX) as mark:
        try:
            mark.bind(f"\0git-credential-bbjwt-{os.getppid()}")  # A name that only Linux has, and that leaves no file.
        except OSError as problem:
            if problem.errno == errno.EADDRINUSE:
                time.sleep(_LONGEST_WAIT)
                return False
        time.sleep(_BEFORE_THE_END)
    return True


application = _application()
