"""Child processes of ours: no secret in their environment or arguments, and an end with the call that started them."""

import contextlib
import os
import signal
import subprocess

from git_credential_bbjwt.system import places

#: The variables that hold secrets: never passed on to a child process.
SECRET_VARIABLES = ("BBJWT_INSTALLATION", "BBJWT_JWT")

# Git's trace variables would make a child write into our output or the user's trace file.
_TRACE_PREFIX = "GIT_TRACE"

# What may hold a password and only a keyring backend has a use for: a proxy's URL; a backend's properties and
# passwords.
_PROXY_SUFFIX = "_proxy"
_OF_GIT_CONFIG = "GIT_CONFIG"  # Only `git config` reads it: with it, it would tell of settings that git does not have.
_KEYRING_PREFIX = "KEYRING_"

_running: set["subprocess.Popen[bytes]"] = set()


def for_keyring() -> dict[str, str]:
    """Return the environment for a keyring's process: ours, less what holds our secrets and what makes git talk.

    A home folder of somebody else is left out, too: the configuration in it names code to run.
    """
    return {
        name: value
        for name, value in os.environ.items()
        if name not in SECRET_VARIABLES and not name.startswith(_TRACE_PREFIX) and not places.is_anothers(name)
    }


def for_git() -> dict[str, str]:
    """Return the environment for git, which uses no network and no keyring here."""
    return {
        name: value
        for name, value in for_keyring().items()
        if not name.lower().endswith(_PROXY_SUFFIX) and not name.startswith(_KEYRING_PREFIX) and name != _OF_GIT_CONFIG
    }


def start(command: list[str], *, env: dict[str, str]) -> "subprocess.Popen[bytes]":
    """Start ``command``, in a process group of its own, with its output in a pipe; `end_all` ends it with the call.

    Raises OSError.
    """
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=env,
        start_new_session=True,
    )
    _running.add(process)
    return process


def ended(process: "subprocess.Popen[bytes]") -> None:
    """Take note that ``process`` has ended by itself."""
    _running.discard(process)


def end_all() -> None:
    """End what still runs, and all that it started: a call that gives up leaves no process behind."""
    for process in list(_running):
        with contextlib.suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL)
