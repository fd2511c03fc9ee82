"""Run git and find out its version."""

import os
from functools import cache

from git_credential_bbjwt.core.failures import CredentialError
from git_credential_bbjwt.system import child_process

#: Git since which the environment can hold settings, by GIT_CONFIG_COUNT (git-config(1), "ENVIRONMENT").
SETTINGS_BY_ENVIRONMENT = (2, 31)

#: Git since which a ``credential.<url>`` section applies to all URLs below its path; earlier ones need exactly the same
#: path ("Git v2.26 Release Notes").
SECTIONS_FOR_PATHS = (2, 26)

#: Git since which ``http.proactiveAuth`` makes it send a password with its first request ("Git v2.46 Release Notes").
PROACTIVE = (2, 46)


#: Exit statuses of ``git config`` after a search: found, and not found. Any other is an error (git-config(1)).
SEARCHED = (0, 1)

#: The command that drops the settings in the environment.
UNSET_SETTINGS = "unset GIT_CONFIG_COUNT GIT_CONFIG_PARAMETERS"


class GitError(CredentialError):
    """Git itself could not do what it was asked."""


def run_git(
    *arguments: str,
    statuses: tuple[int, ...] = (0,),
    seconds: float | None = None,
    without: str = "",
    is_outside: bool = False,
) -> str:
    """Run git, without the variable ``without``, and return its standard output.

    With ``is_outside``, git runs outside of any repository, so it reads the user's and the system's settings alone.
    Raises GitError if its exit status is not among ``statuses``, if it is missing, or takes longer than ``seconds``.
    """
    import subprocess

    environment = {name: value for name, value in child_process.for_git().items() if name != without}
    environment["LC_ALL"] = "C"  # Patterns match bytes, and the reasons below are not translated.
    if is_outside:
        environment["GIT_DIR"] = os.devnull
    try:
        with child_process.starting:
            process: subprocess.Popen[bytes] = subprocess.Popen(
                [child_process.find("git"), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=environment,
                cwd="/" if is_outside else None,
                **child_process.ALONE,
            )
            child_process.running.add(process.pid)
        with process:
            try:
                output, errors = process.communicate(timeout=seconds)
            finally:
                process.kill()
                child_process.running.discard(process.pid)
    except subprocess.TimeoutExpired as problem:
        raise GitError(
            f"git {arguments[0]} did not end within {seconds:g} s", "run it yourself to see more"
        ) from problem
    except OSError as problem:
        raise GitError(f"cannot run git: {problem.strerror}", "install git and have it on PATH") from problem
    if process.returncode not in statuses:
        lines = errors.decode("utf-8", "replace").strip().splitlines() or [f"exit status {process.returncode}"]
        reason = lines[0].removeprefix("fatal: ").removeprefix("error: ")
        hint = f"run git {arguments[0]} yourself, here, to see more"
        if "config line" in reason:
            hint = f"correct that line; or {hint}"
        elif "GIT_CONFIG_" in reason:
            hint = f"run: {UNSET_SETTINGS}"
        raise GitError(f"git failed: {reason}", hint)
    return output.decode("utf-8", "surrogateescape")


@cache
def git_version() -> tuple[int, ...]:
    """Return git's version, such as (2, 39, 5). Raises GitError."""
    words = run_git("version", without="GIT_CONFIG_GLOBAL", is_outside=True).split()  # Git would wait for a FIFO.
    numbers = words[2].split(".") if len(words) > 2 else []
    return tuple(int(number) for number in numbers[:3] if number.isdigit())


def dotted(version: tuple[int, ...]) -> str:
    """Return a version as people write it."""
    return ".".join(map(str, version))


def need_git(since: tuple[int, ...], what: str, instead: str) -> None:
    """Raise GitError, with the hint ``instead``, if git is older than ``what`` needs."""
    found = git_version()
    if found < since:
        raise GitError(f"{what} needs git {dotted(since)} or newer, this is {dotted(found)}", instead)
