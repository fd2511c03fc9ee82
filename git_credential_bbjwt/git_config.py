"""Git's configuration, read and written through ``git config`` itself (git-config(1)), never by touching its files."""

import subprocess
from functools import cache

from git_credential_bbjwt import child_process
from git_credential_bbjwt.diagnostics import trace
from git_credential_bbjwt.errors import CredentialError

#: Git since which the environment can hold settings, by GIT_CONFIG_COUNT (git-config(1), "ENVIRONMENT").
SETTINGS_BY_ENVIRONMENT = (2, 31)

#: Git since which a ``credential.<url>`` section counts for all URLs below its path; before, it had to be the very same
#: path ("Git v2.26 Release Notes").
SECTIONS_FOR_PATHS = (2, 26)


class GitError(CredentialError):
    """Git itself could not do what it was asked."""


def run(*arguments: str, check: bool = True) -> str:
    """Run git and return its standard output. Raises GitError when it fails (unless ``check`` is off) or is missing."""
    try:
        done = subprocess.run(
            ["git", *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env=child_process.for_git(),
        )
    except OSError as problem:
        raise GitError(f"cannot run git: {problem.strerror}", "install git and have it on PATH") from problem
    if check and done.returncode != 0:
        reason = done.stderr.decode("utf-8", "replace").strip().removeprefix("fatal: ").removeprefix("error: ")
        raise GitError(f"git {arguments[0]} failed: {reason or f'exit status {done.returncode}'}")
    return done.stdout.decode("utf-8", "surrogateescape")


@cache
def version() -> tuple[int, ...]:
    """Return git's version, such as (2, 39, 5). Raises GitError."""
    words = run("version").split()
    numbers = words[2].split(".") if len(words) > 2 else []
    return tuple(int(number) for number in numbers[:3] if number.isdigit())


def dotted(version: tuple[int, ...]) -> str:
    """Return a version as people write it."""
    return ".".join(map(str, version))


def need(since: tuple[int, ...], what: str, instead: str) -> None:
    """Raise GitError, with the hint ``instead``, where git is older than ``what`` needs."""
    found = version()
    if found < since:
        raise GitError(f"{what} needs git {dotted(since)} or newer, this is {dotted(found)}", instead)


class HttpSettings:
    """What git's configuration says of ``http.*`` for one URL: one ``git config --get-urlmatch``, under way at once."""

    def __init__(self, url: str) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        try:
            self._process = subprocess.Popen(
                ["git", "config", "-z", "--get-urlmatch", "http", url],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=child_process.for_git(),
            )
        except OSError as problem:
            trace(f"git's http.* settings are not known: {problem.strerror}")

    def read(self) -> dict[str, str]:
        """Return the settings, by lower-case name without the leading ``http.``."""
        if self._process is None:
            return {}
        output, _ = self._process.communicate()
        settings = {}
        for entry in output.decode("utf-8", "surrogateescape").split("\0"):
            name, _, value = entry.partition("\n")
            settings[name.lower().removeprefix("http.")] = value
        return settings


def is_false(value: str) -> bool:
    """Whether git takes ``value`` for a false boolean (git-config(1), "Values")."""
    return value.lower() in ("false", "no", "off", "0", "")
