"""Child processes of ours: no secret in their environment or arguments, and an end with the call that started them."""

import os
import sys

from git_credential_bbjwt.system.places import is_anothers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn

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

# Git's trace variables would make a child write into our output or the user's trace file.
_TRACE_PREFIX = "GIT_TRACE"

# What may hold a password and only a keyring backend has a use for: a proxy's URL; a backend's properties and
# passwords.
_PROXY_SUFFIX = "_proxy"
_OF_GIT_CONFIG = "GIT_CONFIG"  # Only `git config` reads it: with it, it would tell of settings that git does not have.
_KEYRING_PREFIX = "KEYRING_"


def for_keyring() -> dict[str, str]:
    """Return the environment for a keyring's process: ours, less what holds our secrets and what makes git talk.

    A home folder of somebody else is left out, too: the configuration in it names code to run.
    """
    return {
        name: value
        for name, value in os.environ.items()
        if name not in SECRET_VARIABLES + ID_TOKEN_VARIABLES
        and not name.startswith(_TRACE_PREFIX)
        and not is_anothers(name)
    }


def for_git() -> dict[str, str]:
    """Return the environment for git, which uses no network and no keyring here."""
    return {
        name: value
        for name, value in for_keyring().items()
        if not name.lower().endswith(_PROXY_SUFFIX) and not name.startswith(_KEYRING_PREFIX) and name != _OF_GIT_CONFIG
    }


def for_broker() -> dict[str, str]:
    """Return the environment for a broker or an installation command: without our secrets, and nobody to prompt."""
    environment = {name: value for name, value in for_keyring().items() if name not in _ASKING}
    environment["SSH_ASKPASS_REQUIRE"] = "never"
    return environment


def for_id_token() -> dict[str, str]:
    """Return the environment for an ID token command: as for a broker, with what proves this job's identity."""
    return for_broker() | {name: os.environ[name] for name in ID_TOKEN_VARIABLES if name in os.environ}


_ASKING = ("SSH_ASKPASS", "SUDO_ASKPASS", "GIT_ASKPASS")


if sys.platform == "win32":
    from git_credential_bbjwt.system.windows.processes import ALONE as ALONE
    from git_credential_bbjwt.system.windows.processes import Spawned as Spawned
    from git_credential_bbjwt.system.windows.processes import end_after as end_after
    from git_credential_bbjwt.system.windows.processes import end_all as end_all
    from git_credential_bbjwt.system.windows.processes import find as find
else:
    #: How `subprocess` starts what has no terminal to prompt on.
    ALONE: "dict[str, Any]" = {"start_new_session": True}

    # The process groups that still run, by their number.
    running: set[int] = set()

    # More than a call opens.
    _DESCRIPTORS = 256

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

            def start(theirs: int, answers: int) -> int:
                actions: list[tuple[int, ...] | tuple[int, int, str, int, int]] = [
                    (os.POSIX_SPAWN_DUP2, theirs, 0),
                    (os.POSIX_SPAWN_DUP2, answers, 1),
                ]
                if not at_terminal:
                    actions.append((os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0))
                return os.posix_spawnp(command[0], command, env, file_actions=actions, setsid=not at_terminal)

            self._begin(start, request, at_terminal=at_terminal)

        def _begin(self, start: "Callable[[int, int], int]", request: bytes, *, at_terminal: bool = False) -> None:
            theirs, self._input = os.pipe()
            self._output, answers = os.pipe()
            try:
                self.pid = start(theirs, answers)
            except BaseException:
                os.close(self._output)
                os.close(self._input)
                raise
            finally:
                os.close(theirs)
                os.close(answers)
            if not at_terminal:  # There the person ends it.
                running.add(self.pid)
            try:
                while request:
                    request = request[os.write(self._input, request) :]
            except BrokenPipeError:
                pass  # It ended without having been asked, which its output tells.
            os.close(self._input)

        def finish(self, seconds: float | None = None) -> tuple[int, bytes]:
            """Wait for its end; return its exit status, and its standard output.

            Raises TimeoutError where it says nothing for ``seconds``; it is ended then.
            """
            data = self._read(seconds)
            return self._reaped(), data

        def _read(self, seconds: float | None, end: bytes | None = None) -> bytes:
            """Its output, as far as an ``end`` if one is given."""
            data = b""
            while self._has_more(seconds) and (piece := os.read(self._output, 65_536)):
                data += piece
                if end is not None and data.endswith(end):
                    break
            return data

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

    class Forked(Spawned):
        """The same, as a copy of this process: what both need is loaded once, and most of it is loaded already.

        Only for who knows that no other thread is importing anything or holds a lock: in the copy there is none that
        would release it.
        """

        def __init__(self, run: "Callable[[], NoReturn]", env: dict[str, str], request: bytes) -> None:
            """Start ``run`` in it, with ``request`` on its standard input. Raises OSError."""

            parent = os.getpid()

            def start(theirs: int, answers: int) -> int:
                pid = os.fork()
                if pid == 0:
                    try:
                        _become(theirs, answers, env)
                        if os.getppid() == parent:  # Who ended before there was a group could not end that.
                            run()
                    finally:
                        os._exit(1)
                return pid

            self._begin(start, request)

        def finish(self, seconds: float | None = None) -> tuple[int, bytes]:
            """Return 0 and one line of its output; else as `Spawned` does.

            Its end is not waited for after that: a whole copy has to be let go of.
            """
            data = self._read(seconds, b"\n")
            if not data.endswith(b"\n"):
                return self._reaped(), data
            os.close(self._output)
            return 0, data

    def _become(theirs: int, answers: int, env: dict[str, str]) -> None:
        """In a new copy of this process: let go of all that is its parent's."""
        os.setsid()
        nobody = os.open(os.devnull, os.O_WRONLY)
        for fd, place in ((theirs, 0), (answers, 1), (nobody, 2)):
            os.dup2(fd, place)
        os.closerange(3, _DESCRIPTORS)
        os.environ.clear()
        os.environ.update(env)

    def end_all() -> None:
        """End what still runs, and all that it started: a call that gives up leaves no process behind."""
        for pid in list(running):
            kill(pid)
