"""Run one command with the helper switched on for it and its children alone.

Works through the environment (GIT_CONFIG_COUNT, git 2.31 or newer): no
configuration file is changed. For the hosts concerned no other helper is
asked, and none is given the token to store. The helper replaces itself by the
command, so signals and exit status are the command's own.

Examples:
  git-credential-bbjwt exec -- git clone https://bitbucket.org/acme/widgets
  git-credential-bbjwt exec --rewrite-ssh -- make dependencies
"""

import argparse
import contextlib
import os
import signal
import sys
from itertools import takewhile
from shutil import which
from typing import NoReturn

from git_credential_bbjwt.core.failures import CredentialError, UsageError
from git_credential_bbjwt.core.options import HelperOptions
from git_credential_bbjwt.core.output import warning
from git_credential_bbjwt.core.sources import PATH_VARIABLES, read_sources
from git_credential_bbjwt.git.entries import entries, known_urls, workspace_urls
from git_credential_bbjwt.git.run import SETTINGS_BY_ENVIRONMENT, need_git
from git_credential_bbjwt.installations.catalogue import Catalogue
from git_credential_bbjwt.system import core_dumps

# Digits of GIT_CONFIG_COUNT. Git refuses more settings than a C integer counts.
_LONGEST_COUNT = 9


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.usage = "%(prog)s [OPTIONS] -- COMMAND [ARG ...]"
    parser.add_argument("--rewrite-ssh", action="store_true", help="make ssh URLs of these hosts use https instead")
    parser.add_argument(
        "--proactive",
        action="store_true",
        help="make git 2.46 or later send the token of an injected installation's workspace with its first request",
    )
    parser.add_argument("words", nargs=argparse.REMAINDER, metavar="-- COMMAND [ARG ...]", help="what to run")


def execute(options: HelperOptions, arguments: argparse.Namespace) -> int:
    """Become the command. Raises UsageError, CredentialError, and GitError for a git that is too old."""
    words = arguments.words[1:] if arguments.words[:1] == ["--"] else arguments.words
    if not words:
        raise UsageError("exec needs a command to run", "git-credential-bbjwt exec -- git clone URL")
    options.check_id_token()
    need_git(SETTINGS_BY_ENVIRONMENT, "exec", "use git-credential-bbjwt configure instead")
    catalogue = Catalogue(read_sources(options))
    catalogue.warn_of_exposed()
    injected = takewhile(lambda one: not one.secret_place.is_registered, catalogue)  # The registries come last.
    proactive = workspace_urls(injected) if arguments.proactive else []
    if arguments.proactive and not proactive:
        warning("--proactive changes nothing: no injected installation names its workspace")
    urls = known_urls(catalogue)
    wanted = entries(urls, options, exclusive=True, rewrite_ssh=arguments.rewrite_ssh, proactive=proactive)
    environment = _callers_environment()
    first = _config_count(environment)
    for number, (key, value) in enumerate(wanted, start=first):
        environment[f"GIT_CONFIG_KEY_{number}"] = key
        environment[f"GIT_CONFIG_VALUE_{number}"] = value
    environment["GIT_CONFIG_COUNT"] = str(first + len(wanted))
    # cargo's own git does not read these settings.
    environment.setdefault("CARGO_NET_GIT_FETCH_WITH_CLI", "true")
    for name in PATH_VARIABLES:
        # Git runs the helper where the repository is.
        path = environment.get(name, "").strip()
        if path and os.path.exists(path):
            environment[name] = os.path.abspath(path)
    _become(words, environment)


def _config_count(environment: dict[str, str]) -> int:
    """Return how many settings the environment holds already; those of exec come after them."""
    text = environment.get("GIT_CONFIG_COUNT", "") or "0"
    if not text.isascii() or not text.isdigit() or len(text) > _LONGEST_COUNT:
        raise UsageError("GIT_CONFIG_COUNT in the environment is not a number", "unset it")
    return int(text)


def _callers_environment() -> dict[str, str]:
    """Return the environment that this process was started with.

    In the C locale Python sets LC_CTYPE for itself and its children (PEP 538), which the command must not get.
    """
    environment = dict(os.environ)
    with contextlib.suppress(OSError), open("/proc/self/environ", "rb") as initial:
        given = dict(variable.partition(b"=")[::2] for variable in initial.read().split(b"\0"))
        environment.pop("LC_CTYPE", None)
        if b"LC_CTYPE" in given:
            environment["LC_CTYPE"] = os.fsdecode(given[b"LC_CTYPE"])
    return environment


if sys.platform == "win32":
    import subprocess

    def _become(words: list[str], environment: dict[str, str]) -> NoReturn:
        """Run the command and end with its exit status; Windows cannot replace a process. Raises CredentialError."""
        # A console sends Ctrl-C and Ctrl-Break to the command too, which decides.
        for number in (signal.SIGINT, signal.SIGBREAK):
            signal.signal(number, signal.SIG_IGN)
        program = which(words[0]) or words[0]
        try:
            sys.exit(subprocess.run([program, *words[1:]], env=environment, check=False).returncode)
        except OSError as problem:
            raise _cannot_run(words[0], problem) from problem

else:
    from errno import ENOENT, ENOEXEC

    def _become(words: list[str], environment: dict[str, str]) -> NoReturn:
        """Replace this process by the command. Raises CredentialError."""
        # Python ignores these, and a command inherits that (execve(2)).
        for number in (signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_DFL)
        core_dumps.permit_as_before()
        try:
            if not words[0]:
                raise FileNotFoundError(ENOENT, os.strerror(ENOENT))  # Python would raise a ValueError.
            try:
                os.execvpe(words[0], words, environment)
            except OSError as problem:
                path = which(words[0], path=environment.get("PATH"))
                if problem.errno != ENOEXEC or path is None:
                    raise
                # A script without a `#!` line: execvp(3) leaves it to the shell, Python's own does not.
                os.execve("/bin/sh", ["sh", path, *words[1:]], environment)
        except OSError as problem:
            raise _cannot_run(words[0], problem) from problem


def _cannot_run(program: str, problem: OSError) -> CredentialError:
    """Return the error for a command that cannot be run, with the exit status that shells have for it."""
    folders = [""] if os.path.dirname(program) or not program else os.get_exec_path()
    if any(os.path.lexists(os.path.join(folder, program)) for folder in folders):
        error = CredentialError(f"cannot run {program}: {problem.strerror}", "check its mode and its #! line")
        error.exit_status = 126
    else:  # A name that is not there is not repeated, because it may be a secret by mistake.
        error = CredentialError("cannot run the command: there is no such program", "check its name and PATH")
        error.exit_status = 127
    return error
