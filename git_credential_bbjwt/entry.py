"""From the command line to one operation, and from what came of it to lines and an exit status.

This is the fast path's door: a cached ``get``, ``store``, and ``get`` for a foreign host import `helper` and the small
modules it stands on, nothing else.
"""

import os
import resource
import sys

from git_credential_bbjwt import diagnostics
from git_credential_bbjwt.errors import CredentialError, UsageError
from git_credential_bbjwt.options import OPERATIONS, parse_options

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

#: Exit status of a process that ended by SIGINT, as shells count it.
_INTERRUPTED = 130


def main(arguments: "list[str]") -> "NoReturn":
    """Run the command and end the process."""
    _open_standard_descriptors()
    try:
        status = run(arguments)
    except CredentialError as problem:
        diagnostics.error(problem.what, problem.hint)
        status = problem.exit_status
    except KeyboardInterrupt:
        status = _INTERRUPTED
    except OSError as problem:
        where = f" ({problem.filename})" if problem.filename else ""
        diagnostics.error(f"the system says: {problem.strerror or problem}{where}", "BBJWT_TRACE=1 shows where")
        _trace_bug()
        status = 1
    except Exception as bug:  # The outermost frame: a person gets a line, never a traceback.
        diagnostics.error(
            f"something unforeseen went wrong: {type(bug).__name__}",
            "BBJWT_TRACE=1 shows where; please report it",
        )
        _trace_bug()
        status = 1
    # Everything written went to the descriptors at once, so there is nothing to flush; and taking the interpreter down
    # step by step costs a fifth of a cached answer. Threads that still wait for a server end with the process.
    os._exit(status)


def run(arguments: "list[str]") -> int:
    """Run the command and return its exit status. Raises CredentialError for `main` to turn into lines."""
    options, words = parse_options(arguments)
    if words[:1] != ["exec"]:  # The command that one becomes would inherit it.
        _forbid_core_dumps()
    if options.verbose:
        diagnostics.be_verbose()
    if len(words) == 1:
        operation = words[0]
        if operation in OPERATIONS:
            from git_credential_bbjwt import helper

            if operation == "get":
                return helper.get(options)
            if operation == "store":
                return helper.store()
            if operation == "erase":
                return helper.erase(options)
            return helper.capability()
    from git_credential_bbjwt import commands

    if len(words) == 1 and not words[0].startswith("-") and not commands.knows(words[0]):
        # gitcredentials(7): a helper is to ignore operations it does not know, for git may come to send others.
        if not os.isatty(0):
            return 0
        raise UsageError(f"there is no command {words[0]}", "git-credential-bbjwt --help lists them")
    return commands.run(options, words)


def _forbid_core_dumps() -> None:
    """Keep secrets out of core dumps, ours and our children's.

    One byte rather than none: core(5) handlers behind a pipe are run at 0 too, and Linux takes 1 for "no dump at all".
    """
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (1 if hard else 0, hard))


def _open_standard_descriptors() -> None:
    """Make sure 0, 1 and 2 are open: else the next file opened would take the place of standard output."""
    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


def _trace_bug() -> None:
    if diagnostics.tracing():
        import traceback

        for line in traceback.format_exception(*sys.exc_info()):
            for part in line.splitlines():
                diagnostics.trace(part)
