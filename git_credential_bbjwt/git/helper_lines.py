"""Which credential helpers git would ask for a URL, and how (gitcredentials(7), "CONFIGURATION OPTIONS")."""

import os
import shlex
from functools import cache
from typing import NamedTuple
from urllib.parse import urlsplit

from git_credential_bbjwt.core.failures import UsageError
from git_credential_bbjwt.core.options import HelperOptions, parse_options
from git_credential_bbjwt.git.http_settings import FOLDERS_OWN, url_match
from git_credential_bbjwt.git.run import SECTIONS_FOR_PATHS, git_version, run_git
from git_credential_bbjwt.system.places import APP_NAME


class Helper(NamedTuple):
    """One helper as git's configuration has it, and the file it stands in."""

    value: str
    origin: str
    scope: str = ""

    @property
    def program(self) -> str:
        """The first word, as the shell reads it that git runs a helper by."""
        try:
            words = shlex.split(self.value.removeprefix("!"))
        except ValueError:  # A quote that is not closed: the shell cannot run it either.
            words = []
        return words[0] if words else ""

    @property
    def is_ours(self) -> bool:
        """Whether this is git-credential-bbjwt, by short name or by path."""
        return self.program == "bbjwt" or os.path.basename(self.program).removesuffix(".exe") == APP_NAME

    @property
    def is_dead(self) -> bool:
        """Whether it is ours by a path at which there is no program."""
        return self.is_ours and os.path.isabs(self.program) and not os.access(self.program, os.X_OK)


def helpers_for(url: str) -> list[Helper]:
    """Return the helpers git asks for ``url``, the first one first. Raises GitError."""
    helpers: list[Helper] = []
    for value, origin, scope in _settings("helper", url):
        if value:
            helpers.append(Helper(value, origin, scope))
        else:
            helpers.clear()  # An empty value forgets all helpers named before.
    return helpers


def broker_for(url: str) -> HelperOptions | None:
    """Return the options of this helper's line in git's configuration for ``url``, if it names a broker.

    A repository's own configuration is not used: its author would choose who is asked. Raises GitError.
    """
    for helper in reversed(helpers_for(url)):
        if not helper.is_ours or helper.scope in FOLDERS_OWN:
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
    return [value for value, _, _ in _settings("usehttppath", url, "--type=bool")][-1:] == ["true"]


def _settings(name: str, url: str, *options: str) -> list[tuple[str, str, str]]:
    """The values of ``credential.NAME`` that count for ``url``, the file and the scope of each, in git's order.

    Of all that match the last counts, not the one that matches best: ``git config --get-urlmatch`` has another rule.
    """
    fields = _fields(name, *options)
    matches = _matches if git_version() >= SECTIONS_FOR_PATHS else _is_exactly
    settings = []
    for scope, origin, setting in zip(fields[::3], fields[1::3], fields[2::3], strict=True):
        key, _, value = setting.partition("\n")
        section = key.removeprefix("credential.").removesuffix(name).removesuffix(".")
        if not section or matches(section, url):
            settings.append((value, origin, scope))
    return settings


@cache
def _fields(name: str, *options: str) -> list[str]:
    """Scope, origin and line of each ``credential.NAME``, read once for all URLs."""
    pattern = rf"^credential\.(.*\.)?{name}$"
    # Git 2.26 brought both: the rule that sections count for paths, and --show-scope.
    is_new = git_version() >= SECTIONS_FOR_PATHS
    show = ("--show-scope", "--show-origin") if is_new else ("--show-origin",)
    output = run_git("config", "-z", *show, *options, "--get-regexp", pattern, check=False)
    fields = output.split("\0")[:-1]
    if not is_new:  # Then what is a repository's own cannot be told, and counts as that.
        fields = [field for pair in zip(fields[::2], fields[1::2], strict=True) for field in ("local", *pair)]
    return fields


def _matches(section: str, url: str) -> bool:
    return url_match(section, url) is not None


def _is_exactly(section: str, url: str) -> bool:
    """The same for a git from before `SECTIONS_FOR_PATHS`."""
    pattern, wanted = urlsplit(section), urlsplit(url)
    same_host = (pattern.scheme, pattern.netloc) == (wanted.scheme, wanted.netloc)
    return same_host and pattern.path.strip("/") in ("", wanted.path.strip("/"))
