"""The credential helpers that git asks for a URL (gitcredentials(7), "CONFIGURATION OPTIONS")."""

import os
import shlex
import shutil
from collections.abc import Iterator
from urllib.parse import urlsplit

from git_credential_bbjwt.core.failures import UsageError
from git_credential_bbjwt.core.files import APP_NAME
from git_credential_bbjwt.core.option_table import parse_options
from git_credential_bbjwt.core.options import HelperOptions
from git_credential_bbjwt.git.http_settings import url_match
from git_credential_bbjwt.git.run import SEARCHED, SECTIONS_FOR_PATHS, git_version, run_git
from git_credential_bbjwt.git.settings import FOLDERS_OWN, Setting, read_settings

#: Helpers that people use with git and that store what git offers to them.
_STORING = ("cache", "store", "manager", "manager-core", "osxkeychain", "wincred", "libsecret", "gnome-keyring")

#: Other helpers whose names are no secret.
_KNOWN = (*_STORING, "netrc", "oauth", "gh")

# Seconds for a look at git's configuration that an error's hint is worth, after the call's own time may be up.
_PATIENCE = 2.0


class Helper(Setting):
    """One helper as git's configuration has it."""

    __slots__ = ()

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
        except ValueError:  # A quote is not closed; `trouble` says so.
            return self.value.removeprefix("!").split()

    @property
    def is_this_one(self) -> bool:
        """Whether this is git-credential-bbjwt, by short name or by path."""
        return self.program == "bbjwt" or os.path.basename(self.program).removesuffix(".exe") == APP_NAME

    @property
    def trouble(self) -> str:
        """The reason why this helper's line cannot be used, or nothing."""
        try:
            shlex.split(self.value)
            _, rest = parse_options(self.options)
        except ValueError:
            return "a quote in it is not closed"
        except UsageError as problem:
            return problem.what
        return "it has a word that is no option" if rest and rest not in (["$1"], ["$@"]) else ""

    @property
    def path(self) -> str:
        """The path of its URL, without slashes around it: a workspace, or nothing."""
        return urlsplit(self.url).path.strip("/")

    @property
    def may_call_this_one(self) -> bool:
        """Whether it is a shell command that has this helper's name in it."""
        return self.value.startswith("!") and "credential-bbjwt" in self.value and not self.is_this_one

    @property
    def is_dead(self) -> bool:
        """Whether it names this helper in a way that git finds no program by."""
        if self.value.startswith("!"):
            return shutil.which(os.path.expanduser(self.program)) is None
        # Git runs a value that begins as an absolute path, not as a quote, and otherwise `git credential-NAME`.
        return not os.access(self.program, os.X_OK) if os.path.isabs(self.value) else self.program != "bbjwt"

    @property
    def _short_name(self) -> str:
        return os.path.basename(self.program).removesuffix(".exe").removeprefix("git-credential-")

    @property
    def described(self) -> str:
        """Its name and file. Only a program that is there is named, because other words may be a token."""
        name = self._short_name
        if name not in _KNOWN and not shutil.which(f"git-credential-{name}") and not shutil.which(self.program):
            name = "a shell command" if self.value.startswith("!") else "another helper"
        return f"{name} ({self.file})"

    @property
    def stores(self) -> bool:
        """Whether it keeps the passwords that git offers to it."""
        return self._short_name in _STORING


def helpers_for(url: str) -> list[Helper]:
    """Return the helpers that git asks for ``url``, in this order. Raises GitError."""
    helpers: list[Helper] = []
    for setting in _settings("helper", url):
        if setting.value:
            helpers.append(Helper(*setting))
        else:
            helpers.clear()  # An empty value forgets all helpers named before.
    return helpers


def beside_this_one(url: str) -> tuple[list[Helper], Helper | None, list[Helper]]:
    """Return the helpers that git asks before this one, this one, and the others after it. Raises GitError."""
    helpers = helpers_for(url)
    place = next((place for place, helper in enumerate(helpers) if helper.is_this_one), None)
    if place is None:
        return helpers, None, []
    return helpers[:place], helpers[place], [helper for helper in helpers[place:] if not helper.is_this_one]


def options_for(url: str) -> Iterator[HelperOptions]:
    """Yield the options of this helper's lines for ``url`` that git can use. Raises GitError.

    A repository's own configuration is not used, because its author would choose the broker and the commands.
    """
    for helper in helpers_for(url):
        if helper.is_this_one and helper.scope not in FOLDERS_OWN and not helper.trouble:
            yield parse_options(helper.options)[0]


def path_switch(url: str) -> Setting | None:
    """Return the setting that decides whether git sends the path with requests for ``url``. Raises GitError."""
    return next(reversed(_settings("usehttppath", url)), None)


def every() -> list[Helper]:
    """Return all helpers of all files, whatever URL they are for. Raises GitError."""
    return [Helper(*setting) for setting in read_settings(r"^credential\.") if setting.name == "helper"]


def reset_after_this_one(url: str) -> Setting | None:
    """Return the empty helper that makes git forget this helper's line for ``url``, if one does. Raises GitError."""
    is_named, reset = False, None
    for setting in _settings("helper", url):
        is_named = is_named or Helper(*setting).is_this_one
        if is_named and not setting.value:
            reset = setting
    return reset


def is_proactive(url: str) -> bool:
    """Return whether git sends a password with its first request to ``url`` (git 2.46). Raises GitError."""
    found = run_git("config", "--get-urlmatch", "http.proactiveAuth", url, statuses=SEARCHED, seconds=_PATIENCE)
    return found.strip() not in ("", "none")


def _settings(name: str, url: str) -> list[Setting]:
    """Return the settings ``credential.NAME`` that apply to ``url``, in git's order.

    The last one that matches applies, not the one that matches best: ``git config --get-urlmatch`` has another rule.
    """
    found = [setting for setting in read_settings(r"^credential\.") if setting.name == name]
    return [setting for setting in found if not setting.url or _applies(setting.url, url)]


def _applies(section: str, url: str) -> bool:
    if url_match(section, url) is None:
        return False
    return git_version() >= SECTIONS_FOR_PATHS or urlsplit(section).path.strip("/") in ("", urlsplit(url).path[1:])
