"""Child processes, which get no secret in their environment or arguments and end with the call that started them."""

import os
import sys
import threading
import weakref

from git_credential_bbjwt.core.files import is_anothers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

#: The variables with secrets, which are never passed on to a child process.
SECRET_VARIABLES = ("BBJWT_INSTALLATION", "BBJWT_INSTALLATION_COMMAND", "BBJWT_JWT")

#: The variables by which platforms prove a job's identity: passed on only to an ID token command.
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
_OF_GIT_CONFIG = "GIT_CONFIG"  # Only `git config` reads it, and it would report settings that git does not use.
_KEYRING_PREFIX = "KEYRING_"


def for_keyring() -> dict[str, str]:
    """Return the environment for a keyring's process: without secrets, and without git's trace variables.

    Another user's home folder is left out, too, because keyring's configuration can name code to run. The current
    folder must not choose what is run either, so PATH has no relative entries.
    """
    passed_on = {
        name: value
        for name, value in os.environ.items()
        if name not in _NOT_PASSED_ON and not name.startswith(_TRACE_PREFIX) and not is_anothers(name)
    }
    return passed_on | {"PATH": os.pathsep.join(_absolute_path())}


def _absolute_path() -> list[str]:
    """Return the absolute entries of PATH, or if it has none, of the system's default.

    An empty PATH would mean the current folder.
    """
    for path in (os.environ.get("PATH", ""), os.defpath):
        folders = [folder for folder in path.split(os.pathsep) if os.path.isabs(folder)]
        if folders:
            return folders
    return []


def for_git() -> dict[str, str]:
    """Return the environment for git, which needs no network and no keyring here."""
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
    """Return the environment for an ID token command: a broker's, and the variables that prove the job's identity."""
    return for_broker() | {name: os.environ[name] for name in ID_TOKEN_VARIABLES if name in os.environ}


_ASKING = ("SSH_ASKPASS", "SUDO_ASKPASS", "GIT_ASKPASS")


# The process groups that still run, by their number. On Windows, jobs end them.
running: set[int] = set()

#: Held while a process is started and noted in `running`. `end_all` keeps it, because a thread that notices the end
#: of its command may start another one. A signal can interrupt the thread that holds it, so it is reentrant.
starting = threading.RLock()


if sys.platform == "win32":
    from git_credential_bbjwt.system.windows_processes import ALONE as ALONE
    from git_credential_bbjwt.system.windows_processes import Spawned as Spawned
    from git_credential_bbjwt.system.windows_processes import end_after as end_after
    from git_credential_bbjwt.system.windows_processes import end_all as end_all
    from git_credential_bbjwt.system.windows_processes import find as find
else:
    #: Arguments of `subprocess` for a process that has no terminal to prompt on.
    ALONE: "dict[str, Any]" = {"start_new_session": True}

    # Seconds that `end_all` waits for another thread that is starting a process.
    _LONGEST_START = 1.0

    def find(program: str) -> str:
        """Return the path of ``program`` on PATH, without the current folder. Raises FileNotFoundError.

        `shutil.which` would do, but loading it takes 2 ms before the first packet of a mint.
        """
        for folder in _absolute_path():
            path = os.path.join(folder, program)
            if os.path.isfile(path) and os.access(path, os.X_OK):
                return path
        raise FileNotFoundError(2, "it is not on PATH", program)

    def end_after(seconds: int) -> None:
        """End this process after ``seconds``, whatever it is waiting for."""
        from signal import alarm

        alarm(seconds)

    def kill(pid: int) -> None:
        """End a process group."""
        from signal import SIGKILL

        try:
            os.killpg(pid, SIGKILL)
        except OSError:
            pass  # It has already ended.

    def _abandon(pid: int, output: int) -> None:
        kill(pid)
        os.close(output)
        running.discard(pid)
        try:
            os.waitpid(pid, 0)
        except ChildProcessError:
            pass  # It was the parent's, before a server made this process, or somebody has waited for it.

    class Spawned:
        """A process in its own session, whose output is read to the end. `end_all` ends the process with the call.

        If the object is dropped before that, because something else has failed, the process is ended and waited for.
        Otherwise a server would collect ended processes and descriptors.

        It is started by posix_spawn(3), because importing `subprocess` takes as long as git's own answer.
        """

        def __init__(
            self, command: list[str], env: dict[str, str], request: bytes = b"", *, at_terminal: bool = False
        ) -> None:
            """Start the process and write ``request`` to it; with ``at_terminal``, it may prompt. Raises OSError."""
            stdin, to_child = os.pipe()
            try:
                self._output, stdout = os.pipe()
            except BaseException:
                os.close(stdin)
                os.close(to_child)
                raise
            actions: list[tuple[int, ...] | tuple[int, int, str, int, int]] = [
                (os.POSIX_SPAWN_DUP2, stdin, 0),
                (os.POSIX_SPAWN_DUP2, stdout, 1),
            ]
            if not at_terminal:
                actions.append((os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0))
            try:
                with starting:
                    self.pid = os.posix_spawn(
                        find(command[0]), command, env, file_actions=actions, setsid=not at_terminal
                    )
                    if not at_terminal:  # At a terminal, the user ends it.
                        running.add(self.pid)
            except BaseException:
                os.close(self._output)
                os.close(to_child)
                raise
            finally:
                os.close(stdin)
                os.close(stdout)
            self._dropped = weakref.finalize(self, _abandon, self.pid, self._output)
            self._dropped.atexit = False
            if at_terminal:
                self._dropped.detach()
            try:
                while request:
                    request = request[os.write(to_child, request) :]
            except BrokenPipeError:
                pass  # It ended without reading its input. Its output shows that.
            os.close(to_child)

        def finish(self, seconds: float | None = None) -> tuple[int, bytes]:
            """Wait for the end of the process; return its exit status and its standard output.

            If the process prints nothing for ``seconds``, end it. Raises TimeoutError then.
            """
            data = b""
            while self._has_more(seconds) and (piece := os.read(self._output, 65_536)):
                data += piece
            return self._reaped(), data

        def stop(self) -> None:
            """End the process at once."""
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
            self._dropped.detach()
            os.close(self._output)
            _, status = os.waitpid(self.pid, 0)
            running.discard(self.pid)
            return os.waitstatus_to_exitcode(status)

    #: Whether processes that a child left behind become children of this process (prctl(2), PR_SET_CHILD_SUBREAPER).
    adopts_orphans = False

    # Rounds for the end of processes, with pauses that grow: a second in all, more on a busy machine. A limit of time
    # would be over after a stall of the machine.
    _MOST_ROUNDS = 300

    def end_all() -> None:
        """End all running child processes and everything that they started. From now on, none can be started."""
        starting.acquire(timeout=_LONGEST_START)
        for pid in list(running):
            kill(pid)
        if adopts_orphans:
            _end_orphans()

    def _end_orphans() -> None:
        from time import sleep

        for number in range(_MOST_ROUNDS):
            children = _children()
            if not children:
                return
            # If a child ends, its children become children of this process.
            for pid in children:
                try:
                    os.kill(pid, 9)
                    os.waitpid(pid, os.WNOHANG)
                except OSError:
                    pass  # Another thread has waited for it.
            sleep(number / 45_000)

    def _children() -> list[int]:
        """Return the numbers of this process's children (proc(5), "children")."""
        found: list[int] = []
        # Orphans go to the first thread, so its children are read after those of the others.
        for thread in reversed(_threads()):
            try:
                with open(f"/proc/self/task/{thread}/children", encoding="ascii") as numbers:
                    found += map(int, numbers.read().split())
            except OSError:
                pass  # The thread has ended. Its children are another's.
        return found

    def _threads() -> list[str]:
        try:
            return os.listdir("/proc/self/task")
        except OSError:
            return []  # There is no /proc.
