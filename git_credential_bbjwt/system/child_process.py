"""Child processes: no secret in their environment or arguments, and an end with the call that started them."""

import os
import sys

from git_credential_bbjwt.core.places import is_anothers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

#: The variables that hold secrets: never passed on to a child process.
SECRET_VARIABLES = ("BBJWT_INSTALLATION", "BBJWT_INSTALLATION_COMMAND", "BBJWT_JWT")

#: The variables by which platforms prove a job's identity: passed on to an ID token command, and to no other process.
ID_TOKEN_VARIABLES = (
    "BBJWT_ID_TOKEN",
    "ACTIONS_ID_TOKEN_REQUEST_TOKEN",
    "BITBUCKET_STEP_OIDC_TOKEN",
    "CIRCLE_OIDC_TOKEN",
    "CIRCLE_OIDC_TOKEN_V2",
)

_NOT_PASSED_ON = SECRET_VARIABLES + ID_TOKEN_VARIABLES

# Git's trace variables would make a child write into the helper's output or the user's trace file.
_TRACE_PREFIX = "GIT_TRACE"

# Variables that may hold a password and that git does not need: a proxy's URL, a keyring backend's properties.
_PROXY_SUFFIX = "_proxy"
_OF_GIT_CONFIG = "GIT_CONFIG"  # Only `git config` reads it, and would then report settings that git does not have.
_KEYRING_PREFIX = "KEYRING_"


def for_keyring() -> dict[str, str]:
    """Return the environment for a keyring's process: without secrets, and without what makes git trace.

    Another user's home folder is left out, too, because keyring's configuration can name code to run.
    """
    return {
        name: value
        for name, value in os.environ.items()
        if name not in _NOT_PASSED_ON and not name.startswith(_TRACE_PREFIX) and not is_anothers(name)
    }


def for_git() -> dict[str, str]:
    """Return the environment for git, which uses no network and no keyring here."""
    return {
        name: value
        for name, value in for_keyring().items()
        if not name.lower().endswith(_PROXY_SUFFIX) and not name.startswith(_KEYRING_PREFIX) and name != _OF_GIT_CONFIG
    }


def for_broker() -> dict[str, str]:
    """Return the environment for a broker or an installation command: without secrets and prompts."""
    environment = {name: value for name, value in for_keyring().items() if name not in _ASKING}
    environment["SSH_ASKPASS_REQUIRE"] = "never"
    return environment


def for_id_token() -> dict[str, str]:
    """Return the environment for an ID token command: as for a broker, with what proves this job's identity."""
    return for_broker() | {name: os.environ[name] for name in ID_TOKEN_VARIABLES if name in os.environ}


_ASKING = ("SSH_ASKPASS", "SUDO_ASKPASS", "GIT_ASKPASS")


if sys.platform == "win32":
    from git_credential_bbjwt.system.windows_processes import ALONE as ALONE
    from git_credential_bbjwt.system.windows_processes import Spawned as Spawned
    from git_credential_bbjwt.system.windows_processes import end_after as end_after
    from git_credential_bbjwt.system.windows_processes import end_all as end_all
    from git_credential_bbjwt.system.windows_processes import find as find
else:
    #: How `subprocess` starts what has no terminal to prompt on.
    ALONE: "dict[str, Any]" = {"start_new_session": True}

    # The process groups that still run, by their number.
    running: set[int] = set()

    def find(program: str) -> str:
        """What to start for ``program``: the system looks it up on PATH."""
        return program

    def end_after(seconds: int) -> None:
        """End this process then, whatever it is stuck in."""
        from signal import alarm

        alarm(seconds)

    def kill(pid: int) -> None:
        """End a process group."""
        from signal import SIGKILL

        try:
            os.killpg(pid, SIGKILL)
        except OSError:
            pass  # It has ended.

    class Spawned:
        """A process whose whole output is wanted, in a session of its own; `end_all` ends it with the call.

        By posix_spawn(3): the usual module for processes costs as much to import as git takes for an answer.
        """

        def __init__(
            self, command: list[str], env: dict[str, str], request: bytes = b"", *, at_terminal: bool = False
        ) -> None:
            """Start it, and hand it ``request``; ``at_terminal`` lets it talk to a person there. Raises OSError."""
            stdin, to_child = os.pipe()
            self._output, stdout = os.pipe()
            actions: list[tuple[int, ...] | tuple[int, int, str, int, int]] = [
                (os.POSIX_SPAWN_DUP2, stdin, 0),
                (os.POSIX_SPAWN_DUP2, stdout, 1),
            ]
            if not at_terminal:
                actions.append((os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0))
            try:
                self.pid = os.posix_spawnp(command[0], command, env, file_actions=actions, setsid=not at_terminal)
            except BaseException:
                os.close(self._output)
                os.close(to_child)
                raise
            finally:
                os.close(stdin)
                os.close(stdout)
            if not at_terminal:  # There the person ends it.
                running.add(self.pid)
            try:
                while request:
                    request = request[os.write(to_child, request) :]
            except BrokenPipeError:
                pass  # It ended without having read its input, which its output shows.
            os.close(to_child)

        def finish(self, seconds: float | None = None) -> tuple[int, bytes]:
            """Wait for its end; return its exit status and its standard output.

            Raises TimeoutError if it prints nothing for ``seconds``; it is ended then.
            """
            data = b""
            while self._has_more(seconds) and (piece := os.read(self._output, 65_536)):
                data += piece
            return self._reaped(), data

        def stop(self) -> None:
            """End it, whatever it does."""
            kill(self.pid)
            self._reaped()

        def _has_more(self, seconds: float | None) -> bool:
            if seconds is None:
                return True
            from select import POLLIN, poll

            waiting = poll()
            waiting.register(self._output, POLLIN)
            if waiting.poll(seconds * 1000):
                return True
            self.stop()
            raise TimeoutError

        def _reaped(self) -> int:
            os.close(self._output)
            _, status = os.waitpid(self.pid, 0)
            running.discard(self.pid)
            return os.waitstatus_to_exitcode(status)

    #: Whether processes that a child left behind become children of this process (prctl(2), PR_SET_CHILD_SUBREAPER).
    adopts_orphans = False

    # Seconds for processes that were ended to go.
    _LAST_WAIT = 1.0

    def end_all() -> None:
        """End what still runs, and all that it started: a call that gives up leaves no process behind."""
        for pid in list(running):
            kill(pid)
        if adopts_orphans:
            _end_orphans()

    def _end_orphans() -> None:
        from time import monotonic, sleep

        deadline = monotonic() + _LAST_WAIT
        # Each one that ends leaves its own children to this process.
        while (children := _children()) and monotonic() < deadline:
            for pid in children:
                try:
                    os.kill(pid, 9)
                    os.waitpid(pid, os.WNOHANG)
                except OSError:
                    pass  # Somebody else has waited for it.
            sleep(0.001)

    def _children() -> list[int]:
        """The numbers of this process's children (proc(5), "children")."""
        found: list[int] = []
        try:
            for thread in os.listdir("/proc/self/task"):
                with open(f"/proc/self/task/{thread}/children", encoding="ascii") as numbers:
                    found += map(int, numbers.read().split())
        except OSError:
            pass  # A thread that has ended, or no /proc.
        return found
