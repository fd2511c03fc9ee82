"""Which credential helpers git would ask for a URL, and how (gitcredentials(7), "CONFIGURATION OPTIONS")."""

import os
import shlex
from typing import NamedTuple
from urllib.parse import urlsplit

from git_credential_bbjwt.git import config as git_config
from git_credential_bbjwt.system import places


class Helper(NamedTuple):
    """One helper as git's configuration has it, and the file it stands in."""

    value: str
    origin: str

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
        return self.program == "bbjwt" or os.path.basename(self.program) == places.APP_NAME

    @property
    def is_dead(self) -> bool:
        """Whether it is ours by a path at which there is no program."""
        return self.is_ours and self.program.startswith("/") and not os.access(self.program, os.X_OK)


def helpers_for(url: str) -> list[Helper]:
    """Return the helpers git asks for ``url``, the first one first. Raises GitError."""
    helpers: list[Helper] = []
    for value, origin in _settings("helper", url):
        if value:
            helpers.append(Helper(value, origin))
        else:
            helpers.clear()  # An empty value forgets all helpers named before.
    return helpers


def use_http_path(url: str) -> bool:
    """Whether git sends the path with requests for ``url``. Raises GitError."""
    return [value for value, _ in _settings("usehttppath", url, "--type=bool")][-1:] == ["true"]


def _settings(name: str, url: str, *options: str) -> list[tuple[str, str]]:
    """The values of ``credential.NAME`` that count for ``url``, and the file of each, in git's order.

    Of all that match the last counts, not the one that matches best: ``git config --get-urlmatch`` has another rule.
    """
    pattern = rf"^credential\.(.*\.)?{name}$"
    output = git_config.run("config", "-z", "--show-origin", *options, "--get-regexp", pattern, check=False)
    fields = output.split("\0")[:-1]
    matches = _matches if git_config.version() >= git_config.SECTIONS_FOR_PATHS else _is_exactly
    settings = []
    for origin, setting in zip(fields[::2], fields[1::2], strict=True):
        key, _, value = setting.partition("\n")
        section = key.removeprefix("credential.").removesuffix(name).removesuffix(".")
        if not section or matches(section, url):
            settings.append((value, origin))
    return settings


def _matches(section: str, url: str) -> bool:
    return git_config.url_match(section, url) is not None


def _is_exactly(section: str, url: str) -> bool:
    """The same for a git from before `git_config.SECTIONS_FOR_PATHS`."""
    pattern, wanted = urlsplit(section), urlsplit(url)
    same_host = (pattern.scheme, pattern.netloc) == (wanted.scheme, wanted.netloc)
    return same_host and pattern.path.strip("/") in ("", wanted.path.strip("/"))
