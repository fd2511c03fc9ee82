"""Which credential helpers git would ask for a URL, and how (gitcredentials(7), "CONFIGURATION OPTIONS")."""

import os
import shlex
from typing import NamedTuple
from urllib.parse import SplitResult, urlsplit

from git_credential_bbjwt import git_config, places


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
        if not section or matches(urlsplit(section), urlsplit(url)):
            settings.append((value, origin))
    return settings


def _matches(pattern: SplitResult, url: SplitResult) -> bool:
    """Whether a section's URL applies to ``url`` (git-config(1), "http.<url>.*")."""
    try:
        same_port = (pattern.port or 443) == (url.port or 443)
    except ValueError:
        return False
    if pattern.scheme.lower() != url.scheme or not same_port:
        return False
    wanted, found = (pattern.hostname or "").split("."), (url.hostname or "").split(".")
    if len(wanted) != len(found) or any(part not in ("*", there) for part, there in zip(wanted, found, strict=True)):
        return False
    path = pattern.path.rstrip("/")
    return url.path == path or url.path.startswith(path + "/")


def _is_exactly(pattern: SplitResult, url: SplitResult) -> bool:
    """The same for a git from before `git_config.SECTIONS_FOR_PATHS`."""
    same_host = (pattern.scheme, pattern.netloc) == (url.scheme, url.netloc)
    return same_host and pattern.path.strip("/") in ("", url.path.strip("/"))
