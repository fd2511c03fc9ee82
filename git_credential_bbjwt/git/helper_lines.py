"""The credential helpers that git asks for a URL (gitcredentials(7), "CONFIGURATION OPTIONS")."""

import os
import shlex
import shutil
from functools import cache
from typing import NamedTuple
from urllib.parse import urlsplit

from git_credential_bbjwt.core.failures import UsageError
from git_credential_bbjwt.core.option_table import parse_options
from git_credential_bbjwt.core.options import HelperOptions
from git_credential_bbjwt.core.places import APP_NAME
from git_credential_bbjwt.git.http_settings import FOLDERS_OWN, url_match
from git_credential_bbjwt.git.run import SECTIONS_FOR_PATHS, git_version, run_git

#: Helpers that people use with git, each with whether it stores what git offers to it.
KNOWN_HELPERS = {
    "cache": True,
    "store": True,
    "manager": True,
    "manager-core": True,
    "osxkeychain": True,
    "wincred": True,
    "libsecret": True,
    "gnome-keyring": True,
    "netrc": False,
    "oauth": False,
    "gh": False,
}


class Helper(NamedTuple):
    """One helper as git's configuration has it: its value, what names it, git's scope of that, and its key."""

    value: str
    origin: str = ""
    scope: str = ""
    key: str = ""

    @property
    def program(self) -> str:
        """The first word, as the shell reads it that git runs a helper by."""
        return self._words[0] if self._words else ""

    @property
    def options(self) -> list[str]:
        """The words after the program."""
        return self._words[1:]

    @property
    def _words(self) -> list[str]:
        try:
            return shlex.split(self.value.removeprefix("!"))
        except ValueError:  # A quote that is not closed: the shell cannot run it either.
            return []

    @property
    def is_this_one(self) -> bool:
        """Whether this is git-credential-bbjwt, by short name or by path."""
        return self.program == "bbjwt" or os.path.basename(self.program).removesuffix(".exe") == APP_NAME

    @property
    def may_call_this_one(self) -> bool:
        """Whether it is a shell command that has this helper's name in it."""
        return self.value.startswith("!") and "credential-bbjwt" in self.value and not self.is_this_one

    @property
    def is_dead(self) -> bool:
        """Whether it names this helper in a way that git finds no program by."""
        if not self.is_this_one:
            return False
        if self.value.startswith("!"):
            return shutil.which(os.path.expanduser(self.program)) is None
        # Git runs an absolute path as it is, and `git credential-NAME` for any other word (gitcredentials(7)).
        return not os.access(self.program, os.X_OK) if os.path.isabs(self.program) else self.program != "bbjwt"

    @property
    def name(self) -> str:
        """A name for people. Only a program that is there is named, because other words may be a token."""
        name = os.path.basename(self.program).removesuffix(".exe").removeprefix("git-credential-")
        if name in KNOWN_HELPERS or shutil.which(f"git-credential-{name}") or shutil.which(self.program):
            return name
        return "a shell command" if self.value.startswith("!") else "another helper"

    @property
    def stores(self) -> bool:
        """Whether it keeps the passwords that git offers to it."""
        name = os.path.basename(self.program).removesuffix(".exe").removeprefix("git-credential-")
        return name in KNOWN_HELPERS and KNOWN_HELPERS[name]

    @property
    def file(self) -> str:
        """The file that names it, or what else does."""
        if self.origin.startswith("file:"):
            return os.path.abspath(self.origin.removeprefix("file:"))
        return self.origin.removesuffix(":")


def helpers_for(url: str) -> list[Helper]:
    """Return the helpers that git asks for ``url``, in this order. Raises GitError."""
    helpers: list[Helper] = []
    for helper in _settings("helper", url):
        if helper.value:
            helpers.append(helper)
        else:
            helpers.clear()  # An empty value forgets all helpers named before.
    return helpers


def broker_for(url: str) -> HelperOptions | None:
    """Return the options of this helper's line in git's configuration for ``url``, if it names a broker.

    A repository's own configuration is not used: its author would choose who is asked. Raises GitError.
    """
    for helper in reversed(helpers_for(url)):
        if not helper.is_this_one or helper.scope in FOLDERS_OWN:
            continue
        try:
            options, _ = parse_options(shlex.split(helper.value.removeprefix("!"))[1:])
        except (ValueError, UsageError):
            continue
        if options.broker is not None:
            return options
    return None


def use_http_path(url: str) -> bool:
    """Whether git sends the path with requests for ``url``. Raises GitError."""
    return [setting.value for setting in _settings("usehttppath", url, "--type=bool")][-1:] == ["true"]


def every() -> list[Helper]:
    """Return all helpers of all files, whatever URL they are for. Raises GitError."""
    return _all("helper")


def reset_after_this_one(url: str) -> Helper | None:
    """Return the empty helper that makes git forget this helper's line for ``url``, if one does. Raises GitError."""
    is_named, reset = False, None
    for helper in _settings("helper", url):
        is_named = is_named or helper.is_this_one
        if is_named and not helper.value:
            reset = helper
    return reset


# Seconds for a look at git's configuration that an error's hint is worth, after the call's own time may be up.
_PATIENCE = 2.0


def is_proactive(url: str) -> bool:
    """Return whether git sends a password with its first request to ``url`` (git 2.46). Raises GitError."""
    found = run_git("config", "--get-urlmatch", "http.proactiveAuth", url, check=False, seconds=_PATIENCE)
    return found.strip() not in ("", "none")


def read_again() -> None:
    """Forget what was read, after a change."""
    _fields.cache_clear()


def _settings(name: str, url: str, *options: str) -> list[Helper]:
    """Return the settings ``credential.NAME`` that apply to ``url``, in git's order.

    The last one that matches applies, not the one that matches best: ``git config --get-urlmatch`` has another rule.
    """
    matches = _matches if git_version() >= SECTIONS_FOR_PATHS else _is_exactly
    settings = []
    for setting in _all(name, *options):
        section = setting.key.removeprefix("credential.").removesuffix(name).removesuffix(".")
        if not section or matches(section, url):
            settings.append(setting)
    return settings


def _all(name: str, *options: str) -> list[Helper]:
    fields = _fields(name, *options)
    settings = []
    for scope, origin, setting in zip(fields[::3], fields[1::3], fields[2::3], strict=True):
        key, _, value = setting.partition("\n")
        settings.append(Helper(value, origin, scope, key))
    return settings


@cache
def _fields(name: str, *options: str) -> list[str]:
    """Return scope, origin and line of each ``credential.NAME``, read once for all URLs."""
    pattern = rf"^credential\.(.*\.)?{name}$"
    # Git 2.26 brought both: the rule that sections apply to the paths below them, and --show-scope.
    is_new = git_version() >= SECTIONS_FOR_PATHS
    show = ("--show-scope", "--show-origin") if is_new else ("--show-origin",)
    output = run_git("config", "-z", *show, *options, "--get-regexp", pattern, check=False)
    fields = output.split("\0")[:-1]
    if not is_new:  # Any of them may be a repository's own, and is treated so.
        fields = [field for pair in zip(fields[::2], fields[1::2], strict=True) for field in ("local", *pair)]
    return fields


def _matches(section: str, url: str) -> bool:
    return url_match(section, url) is not None


def _is_exactly(section: str, url: str) -> bool:
    """The same for a git from before `SECTIONS_FOR_PATHS`."""
    pattern, wanted = urlsplit(section), urlsplit(url)
    same_host = (pattern.scheme, pattern.netloc) == (wanted.scheme, wanted.netloc)
    return same_host and pattern.path.strip("/") in ("", wanted.path.strip("/"))
