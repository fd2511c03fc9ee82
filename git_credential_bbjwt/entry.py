"""Start the program: choose the operation, answer a `get` from the cache, turn an error into lines and an exit status.

Git calls the helper twice per fetch, so a request for a foreign host or a cached token is answered here with few
imports. Everything else is imported when it is needed.
"""

import gc
import os
import sys

from git_credential_bbjwt.core.options import OPERATIONS, HelperOptions

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from git_credential_bbjwt.core.protocol import Request
    from git_credential_bbjwt.core.record import Record
    from git_credential_bbjwt.core.sources import Sources


#: Exit status of a process that SIGINT ended, as shells report it.
_INTERRUPTED = 130


def main(arguments: "list[str]") -> "NoReturn":
    """Run the command and end the process."""
    _open_standard_descriptors()
    try:
        status = dispatch(arguments)
    except KeyboardInterrupt:
        status = _INTERRUPTED
    except Exception as problem:  # The user gets an error line, never a traceback.
        from git_credential_bbjwt.core.output import report

        status = report(problem)
    children = sys.modules.get("git_credential_bbjwt.system.child_process")
    if children is not None:  # If it is not loaded, no child was started.
        children.end_all()
    # An orderly end of the interpreter would take a fifth of a cached answer. Output is not buffered, so there is
    # nothing to flush. Threads that still wait for a server end with the process.
    os._exit(status)


def console() -> "NoReturn":
    """Run the command on Windows, where installers start it without ``-I``.

    PYTHONPATH and the current folder (an empty entry) must not choose the libraries that see the secret.
    """
    entries = os.environ.get("PYTHONPATH", "")
    others = {os.path.realpath(path) for path in entries.split(os.pathsep)} if entries else set()
    sys.path[:] = [path for path in sys.path if path and os.path.realpath(path) not in others]
    main(sys.argv[1:])


def dispatch(arguments: "list[str]") -> int:
    """Run the command and return its exit status. Raises CredentialError, which `main` prints."""
    if arguments and arguments[0] in OPERATIONS:
        options, words = HelperOptions(), arguments
    else:
        from git_credential_bbjwt.core.option_table import parse_options

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
                "run it on Linux, and use it from Windows with --broker 'ssh -T BROKER'",
            )
    if options.verbose:
        from git_credential_bbjwt.core.output import be_verbose

        be_verbose()
    if len(words) == 1:
        operation = words[0]
        if operation in OPERATIONS:
            _keep_out_of_core_dumps()
            return _OPERATIONS[operation](options)
    _prepare_process()
    gc.enable()
    from git_credential_bbjwt.commands import command_line

    return command_line.execute(options, words)


def _get(options: HelperOptions) -> int:
    """Answer a credential request on standard input: nothing for a foreign host, a cached token, or a new one.

    Return the exit status. Raises CredentialError; if the request was for this helper, git was told to quit before.
    """
    from git_credential_bbjwt.core.protocol import cached_answer, parse_request, read_request, write_answer
    from git_credential_bbjwt.core.repository import CLOUD_HOST
    from git_credential_bbjwt.core.sources import read_sources

    request = parse_request(read_request())
    host = request.host
    sources = read_sources(options)
    if not sources.may_name(host):
        if request.protocol == b"https" and host in (CLOUD_HOST, *options.hosts) and sources.is_empty():
            from git_credential_bbjwt.core.output import note

            why = "this machine has no installation: set BBJWT_INSTALLATION, or run "
            why += "git-credential-bbjwt register FILE"
            if os.environ.get("BBJWT_BROKER"):
                why = "git's settings do not name the broker of BBJWT_BROKER: run git-credential-bbjwt configure"
            note(f"there is no token for {host}, because {why}")
        elif _is_traced(options):
            _trace(f"no installation names the host {host.rpartition('@')[2]}")
        return 0
    record = _cached(request, options, sources)
    if record is None:
        _prepare_process()
        from git_credential_bbjwt.getting.get import get_new

        return get_new(request, options, sources)
    if _is_traced(options):
        _trace(f"{record.workspace}/{record.name or '*'}: using the cached token, which expires at {record.end}")
    write_answer(cached_answer(request, record.token, record.expires, record.fingerprint, record.username))
    return 0


def _cached(request: "Request", options: HelperOptions, sources: "Sources") -> "Record | None":
    """Return the record that may answer if only the sources' stamp is checked; otherwise None."""
    if request.protocol != b"https" or request.path is None or options.token_store == "none":
        return None
    from git_credential_bbjwt.core.options import check_allowed
    from git_credential_bbjwt.core.protocol import refused_fingerprints
    from git_credential_bbjwt.core.repository import parse_path

    try:
        repository = parse_path(request.host, request.path)
        check_allowed(options.allow, repository)
    except Exception as problem:  # To name the two errors, their module would have to be loaded for every answer.
        from git_credential_bbjwt.core.failures import NotAllowedError, NotARepositoryError

        if not isinstance(problem, (NotARepositoryError, NotAllowedError)):
            raise
        return None  # `get_new` reports it.

    from git_credential_bbjwt.core.record import cached_record

    record = cached_record(repository, options.scope, options.app)
    if record is None:
        return None
    may_answer = record.may_answer(refused_fingerprints(request), stamp=sources.stamp(repository))
    return record if may_answer else None


def _prepare_process() -> None:
    """Forbid core dumps, make all packages importable, and make sure that children can be waited for."""
    from git_credential_bbjwt.system import core_dumps, site_packages

    core_dumps.forbid()
    site_packages.load()
    if sys.platform != "win32":
        import signal

        # If the caller ignores SIGCHLD, so does this process, and the kernel keeps no exit status of children.
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)


def _is_traced(options: HelperOptions) -> bool:
    return options.verbose or bool(os.environ.get("BBJWT_TRACE"))


def _trace(decision: str) -> None:
    from git_credential_bbjwt.core.output import trace

    trace(decision)


def _store(options: HelperOptions) -> int:  # noqa: ARG001  # all operations have the same parameter
    """Read the request and keep nothing, because tokens are cached when they are minted."""
    from git_credential_bbjwt.core.protocol import read_request

    read_request()
    return 0


def _erase(options: HelperOptions) -> int:
    from git_credential_bbjwt.getting.erase import erase

    return erase(options)


def _capability(options: HelperOptions) -> int:  # noqa: ARG001  # all operations have the same parameter
    """Print the helper's capabilities, which are additions to the oldest protocol (git-credential(1), "capability")."""
    from git_credential_bbjwt.core.protocol import write_answer

    write_answer(b"version 0\ncapability state\n")
    return 0


# Each operation has few imports, because git calls the helper twice per fetch.
_OPERATIONS = {"get": _get, "store": _store, "erase": _erase, "capability": _capability}


def _open_standard_descriptors() -> None:
    """Open the descriptors 0, 1 and 2 if they are closed, or the next file that is opened would be standard output.

    A closed standard output is replaced by a file that cannot be written, so that printing a result is an error.
    """
    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDONLY if fd == 1 else os.O_RDWR)
            if fd == 0:
                sys.stdin = os.fdopen(0)  # Python has none then.
    if sys.platform == "win32":
        from git_credential_bbjwt.core.windows_files import write_as_git_reads

        write_as_git_reads()


def _keep_out_of_core_dumps() -> None:
    """Keep tokens out of core dumps, at the least cost.

    Importing `core_dumps` takes 3 % of a cached answer. If the limit already forbids core files, only a crash reporter
    behind a pipe could read the memory, so it is enough to have Linux dump no memory (core(5), "coredump_filter").
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
