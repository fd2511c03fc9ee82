"""Start the program: choose the operation, turn an error into lines and an exit status."""

import gc
import os
import sys

from git_credential_bbjwt.core.options import OPERATIONS, HelperOptions, parse_options

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn


#: Exit status of a process that ended by SIGINT, as shells count it.
_INTERRUPTED = 130


def main(arguments: "list[str]") -> "NoReturn":
    """Run the command and end the process."""
    _heed_children()
    _open_standard_descriptors()
    try:
        status = dispatch(arguments)
    except KeyboardInterrupt:
        status = _INTERRUPTED
    except Exception as problem:  # The outermost frame: a person gets a line, never a traceback.
        status = _report(problem)
    children = sys.modules.get("git_credential_bbjwt.system.child_process")
    if children is not None:  # If it is not loaded, no child was started.
        children.end_all()
    # Output is not buffered, so there is nothing to flush. An orderly end of the interpreter would cost a fifth of a
    # cached answer. Threads that still wait for a server end with the process.
    os._exit(status)


def _report(problem: Exception) -> int:
    """Print what went wrong and what to do next, one line each; return the exit status."""
    from git_credential_bbjwt.core.output import error

    failures = sys.modules.get("git_credential_bbjwt.core.failures")
    if failures is not None and isinstance(problem, failures.CredentialError):  # Not loaded: not raised.
        error(problem.what, problem.hint)
        status: int = problem.exit_status
        return status
    if isinstance(problem, OSError):
        where = f" ({problem.filename})" if problem.filename else ""
        error(f"the system says: {problem.strerror or problem}{where}", "BBJWT_TRACE=1 shows where")
    else:
        error(
            f"internal error: {type(problem).__name__}",
            "set BBJWT_TRACE=1 to see where, and report it with that trace",
        )
    _trace_bug()
    return 1


def console() -> "NoReturn":
    """The entry point on Windows, where installers start it without ``-I``.

    Whoever sets PYTHONPATH must not choose the libraries that see the secret; an empty entry is the current folder.
    """
    entries = os.environ.get("PYTHONPATH", "")
    others = {os.path.realpath(path) for path in entries.split(os.pathsep)} if entries else set()
    sys.path[:] = [path for path in sys.path if path and os.path.realpath(path) not in others]
    main(sys.argv[1:])


def dispatch(arguments: "list[str]") -> int:
    """Run the command and return its exit status. Raises CredentialError for `main` to turn into lines."""
    options, words = parse_options(arguments)
    if words[:1] == ["serve"]:
        if sys.platform != "win32":
            from git_credential_bbjwt.serving.isolation import isolate

            isolate()
            options.verbose = False  # A client reads standard error.
        else:
            from git_credential_bbjwt.core.failures import UsageError

            raise UsageError(
                "serve does not run on Windows: it is started by sshd or systemd",
                "run it on Linux; a Windows machine asks it with --broker 'ssh -T BROKER'",
            )
    if options.verbose:
        from git_credential_bbjwt.core.output import be_verbose

        be_verbose()
    if len(words) == 1:
        operation = words[0]
        if operation in OPERATIONS:
            _keep_out_of_core_dumps()
            return _OPERATIONS[operation](options)
    from git_credential_bbjwt.system import core_dumps, site_packages

    core_dumps.forbid()
    site_packages.load()
    gc.enable()
    from git_credential_bbjwt.commands import command_line

    return command_line.execute(options, words)


def _get(options: HelperOptions) -> int:
    from git_credential_bbjwt.getting.get import get

    return get(options)


def _store(options: HelperOptions) -> int:  # noqa: ARG001  # every operation's shape
    """Read the request and keep nothing: tokens are cached when they are minted, other passwords never."""
    from git_credential_bbjwt.git.protocol import read_all

    read_all(0)
    return 0


def _erase(options: HelperOptions) -> int:
    from git_credential_bbjwt.getting.erase import erase

    return erase(options)


def _capability(options: HelperOptions) -> int:  # noqa: ARG001  # every operation's shape
    """Say what the helper understands beyond the oldest protocol (git-credential(1), "capability")."""
    from git_credential_bbjwt.git.protocol import write_answer

    write_answer(b"version 0\ncapability state\n")
    return 0


# Each imports what it needs and no more: git runs one of them twice per fetch.
_OPERATIONS = {"get": _get, "store": _store, "erase": _erase, "capability": _capability}


def _open_standard_descriptors() -> None:
    """Make sure 0, 1 and 2 are open: else the next file opened would take the place of standard output.

    A closed standard output is replaced by a file that cannot be written, so a result that reaches nobody is an error.
    """
    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDONLY if fd == 1 else os.O_RDWR)
    if sys.platform == "win32":
        from git_credential_bbjwt.system.windows.files import write_as_git_reads

        write_as_git_reads()


def _heed_children() -> None:
    """Undo an ignored SIGCHLD, which a caller can hand down: the kernel would keep the exit status of children."""
    if sys.platform != "win32":
        # Built in; `signal` itself costs a tenth of a cached answer.
        from _signal import SIG_DFL, SIGCHLD, signal  # type: ignore[import-not-found]  # typeshed has the public one

        signal(SIGCHLD, SIG_DFL)


def _keep_out_of_core_dumps() -> None:
    """Keep a token that git hands over, or that is in the cache, out of core dumps, at the least cost.

    `core_dumps` imports what takes 3 % of a cached answer. If no core file can be written anyway, it is enough to tell
    Linux that no memory belongs in what a crash reporter reads from a pipe (core(5), "coredump_filter").
    """
    if sys.platform == "linux":
        try:
            limits = os.open("/proc/self/limits", os.O_RDONLY | os.O_CLOEXEC)
            soft = os.read(limits, 4096).partition(b"Max core file size")[2].split(None, 1)[:1]
            os.close(limits)
            if soft == [b"0"]:
                memory = os.open("/proc/self/coredump_filter", os.O_WRONLY | os.O_CLOEXEC)
                os.write(memory, b"0")
                os.close(memory)
                return
        except OSError:
            pass  # No /proc here.
    from git_credential_bbjwt.system import core_dumps

    core_dumps.forbid()


def _trace_bug() -> None:
    from git_credential_bbjwt.core.output import trace, tracing

    if tracing():
        import traceback

        for line in traceback.format_exception(*sys.exc_info()):
            for part in line.splitlines():
                trace(part)
