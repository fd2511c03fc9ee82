"""The settings that `configure` and `exec` write into git's configuration, and `unconfigure` removes.

An entry of this helper is recognised by its value: the program that it names. The settings beside it (``useHttpPath``,
``proactiveAuth``, ``insteadOf``, a reset) belong to the helpers of the same URL, and go with the last one.
"""

import os
import shutil
import sys
from collections.abc import Iterable, Sequence

from git_credential_bbjwt.core.clone_urls import ssh_forms
from git_credential_bbjwt.core.failures import CredentialError, UsageError
from git_credential_bbjwt.core.option_table import helper_words, merged, parse_options
from git_credential_bbjwt.core.options import HelperOptions
from git_credential_bbjwt.core.places import APP_NAME
from git_credential_bbjwt.git.configuration_file import (
    ConfigurationFile,
    Entry,
    file_to_write,
    files_to_read,
    normal_key,
)
from git_credential_bbjwt.git.helper_lines import Helper
from git_credential_bbjwt.installations.catalogue import Catalogue
from git_credential_bbjwt.installations.installation import CLOUD_BASE_URL


def base_urls(catalogue: Catalogue) -> list[str]:
    """Return the base URLs to configure: those of registered installations, else those of `known_urls`."""
    return [f"https://{host}" for host in catalogue.registered_hosts()] or known_urls(catalogue)


def known_urls(catalogue: Catalogue) -> list[str]:
    """Return the base URLs of all installations; without any, Bitbucket Cloud's."""
    return [f"https://{host}" for host in catalogue.hosts()] or [CLOUD_BASE_URL]


def executable() -> str:
    """Return the absolute path of the installed command, as git takes it. Raises CredentialError."""
    called = sys.argv[0]
    if os.path.basename(called).removesuffix(".exe") == APP_NAME:
        return _for_git(called)
    found = shutil.which(APP_NAME)
    if found is None:
        raise CredentialError(f"{APP_NAME} is not installed as a command", "run ./install.sh, or use pipx")
    return _for_git(found)


def _for_git(path: str) -> str:
    """Return an absolute path as the shell takes it that git runs a helper by, which on Windows is a Unix shell."""
    path = os.path.abspath(path)
    if os.name == "nt":
        path = path.replace("\\", "/")
        path = path if path.lower().endswith(".exe") else path + ".exe"
    return path


def helper_value(options: Sequence[str] = ()) -> str:
    """Return how git's configuration names the helper: by its absolute path, because cron and desktops have no PATH."""
    return " ".join(shell_word(word) for word in (executable(), *options))


def shell_word(text: str) -> str:
    """Escape a word for the shell that git runs a helper by; quotes would hide from git that a path is absolute."""
    # A backslash before a line break would remove both.
    return "".join(c if c.isalnum() or c in "/._-+@%=:," else "'\n'" if c == "\n" else "\\" + c for c in text)


def entries(url: str, helper: str, *, exclusive: bool, rewrite_ssh: bool, proactive: bool = False) -> list[Entry]:
    """Return the settings for one URL, in the order in which git reads them (gitcredentials(7), git-config(1))."""
    section = f"credential.{url}"
    wanted = [(f"{section}.helper", "")] if exclusive else []
    wanted += [(f"{section}.helper", helper), (f"{section}.useHttpPath", "true")]
    if rewrite_ssh:
        wanted += _instead_of(url)
    if proactive:
        wanted.append(proactive_entry(url))
    return wanted


def _instead_of(url: str) -> list[Entry]:
    host, _, workspace = url.removeprefix("https://").partition("/")
    tail = f"{workspace}/" if workspace else ""
    return [(f"url.{url}/.insteadOf", form + tail) for form in ssh_forms(host)]


def proactive_entry(workspace_url: str) -> Entry:
    """Return the setting that makes git 2.46 and later send the token with its first request (git-config(1))."""
    return f"http.{workspace_url}/.proactiveAuth", "basic"


class Level:
    """One level of git's configuration: ``global``, ``system`` or ``local``."""

    def __init__(self, name: str) -> None:
        """Raises CredentialError if it cannot be used."""
        self.name = name
        self._file = file_to_write(name)

    def write(self, wanted: list[Entry], options: HelperOptions) -> list[Entry]:
        """Bring the ``wanted`` settings into the file; return those that were not there.

        Earlier entries of this helper for the same URLs are replaced. Their options stay, unless ``options`` has others
        of the same name, so that no bound gets lost. Raises CredentialError.
        """
        written: list[Entry] = []
        for key in dict.fromkeys(key for key, _ in wanted):
            values = [value for name, value in wanted if name == key]
            if key.endswith(".helper"):
                written += self._write_helper(key, values, options)
            elif key.endswith(".insteadOf"):
                present = self._file.values(key)
                missing = [(key, value) for value in values if value not in present]
                for entry in missing:
                    self._file.add(*entry)
                written += missing
            elif self._file.values(key)[-1:] != values:
                self._file.set(key, values[-1])
                written.append((key, values[-1]))
        return written

    def _write_helper(self, key: str, values: list[str], options: HelperOptions) -> list[Entry]:
        present = self._file.values(key)
        earlier = [value for value in present if Helper(value).is_this_one]
        wanted = [value for value in values if value]
        if earlier:
            wanted = list(dict.fromkeys(_renewed(value, options) for value in earlier))
        others = [value for value in present if value not in earlier]
        is_exclusive = "" not in values or (earlier and present[-len(earlier) - 1 : -len(earlier)] == [""])
        if earlier == wanted and is_exclusive:
            return []
        for value in dict.fromkeys(earlier):
            self._file.remove(key, value)
        reset = [""] if "" in values and others[-1:] != [""] else []
        for value in reset + wanted:
            self._file.add(key, value)
        return [(key, value) for value in reset + wanted]

    def move_to_end(self, url: str) -> None:
        """Write the helpers of ``url`` again, behind all that the file has: git reads helpers in the file's order.

        Raises CredentialError.
        """
        keys = (f"credential.{url}.helper", f"credential.{url}.useHttpPath")
        values = {key: self._file.values(key) for key in keys}
        for key in keys:
            if values[key]:
                self._file.clear(key)
        for key in keys:
            for value in values[key]:
                self._file.add(key, value)

    def replace_other_urls(self, urls: list[str]) -> None:
        """Remove this helper's entries for a whole host if ``urls`` are for its workspaces, and the other way round.

        An entry that has other options than the new ones stays. Raises CredentialError.
        """
        new = {url: self._file.values(f"credential.{url}.helper") for url in urls}
        for url, values in _this_helpers(self._file.settings()).items():
            covering = [one for one in urls if one != url and (_is_below(url, one) or _is_below(one, url))]
            if url not in urls and any(set(values) <= set(new[one]) for one in covering):
                _remove(self._file, url, values, is_replaced=True)

    def entries(self) -> list[Entry]:
        """Return this helper's entries. Raises CredentialError."""
        return [
            (url, value)
            for file in files_to_read(self.name)
            for url, values in _this_helpers(file.settings()).items()
            for value in values
        ]

    def remove(self) -> list[Entry]:
        """Remove this helper's entries, and what belongs to them; return them. Raises CredentialError."""
        removed: list[Entry] = []
        for file in files_to_read(self.name):
            for url, values in _this_helpers(file.settings()).items():
                removed += _remove(file, url, values)
        return removed


def _is_about(url: str, other: str) -> bool:
    return url == other or _is_below(url, other)


def _is_below(url: str, other: str) -> bool:
    return url.startswith(other + "/")


def _this_helpers(settings: Iterable[Entry]) -> dict[str, list[str]]:
    """Return this helper's values by the URL of their section, which is empty for ``credential.helper``."""
    found: dict[str, list[str]] = {}
    for key, value in settings:
        if key.startswith("credential.") and key.endswith(".helper") and Helper(value).is_this_one:
            url = key.removeprefix("credential.").removesuffix("helper").removesuffix(".")
            found.setdefault(url, []).append(value)
    return found


def _remove(file: ConfigurationFile, url: str, values: list[str], *, is_replaced: bool = False) -> list[Entry]:
    """Remove this helper's ``values`` for ``url``, and what belongs to them if no other helper is left.

    If entries for other URLs of the host replace them (``is_replaced``), ``proactiveAuth`` stays.
    """
    key = f"credential.{url}.helper" if url else "credential.helper"
    removed = [(key, value) for value in dict.fromkeys(values)]
    left = [value for value in file.values(key) if value not in values]
    if any(left) and not left[-1]:
        # The reset was for this helper only; left as the last value, it would silence the other helpers.
        while not left[-1]:
            left.pop()
        file.replace(key, left)
        return [*removed, (key, "")]
    base = url.rstrip("/")
    if url and not any(left):
        instead = [(normal_key(name), value) for name, value in _instead_of(base)]
        removed += dict.fromkeys((key, value) for value in left)
        for name, value in file.settings():
            section, _, rest = name.partition(".")
            about, _, setting = rest.rpartition(".")
            about = about.rstrip("/")
            belongs = (
                (section == "credential" and setting == "usehttppath" and about == base)
                or (section == "http" and setting == "proactiveauth" and _is_about(about, base) and not is_replaced)
                or (name, value) in instead
            )
            if belongs:
                removed.append((name, value))
    for key, value in dict.fromkeys(removed):
        if value in file.values(key):
            file.remove(key, value)
    return removed


def _renewed(earlier: str, options: HelperOptions) -> str:
    """Return the ``earlier`` value with the program as it is now, and with ``options``. Raises UsageError."""
    words = Helper(earlier).options
    if helper_words(options):
        try:
            options = merged(parse_options(words)[0], options)
        except UsageError:
            pass  # Git could not use the earlier line.
        options.check()
        words = helper_words(options)
    return helper_value(words)
