"""The entries of this helper in git's configuration: `configure` and `exec` write them, `unconfigure` removes them.

An entry of this helper is recognised by its value: the program that it names. The settings beside it (``useHttpPath``,
``proactiveAuth``, ``insteadOf``, a reset) belong to the helpers of the same URL, and go with the last one.
"""

import os
import shutil
import sys
from collections.abc import Iterable

from git_credential_bbjwt.core.failures import CredentialError
from git_credential_bbjwt.core.files import APP_NAME
from git_credential_bbjwt.core.option_table import helper_words, merged, parse_options
from git_credential_bbjwt.core.options import HelperOptions
from git_credential_bbjwt.git.clone_urls import ssh_forms
from git_credential_bbjwt.git.helper_lines import Helper
from git_credential_bbjwt.git.settings import ConfigurationFile, Entry, Setting, file_to_write, files_to_read
from git_credential_bbjwt.installations.catalogue import Catalogue
from git_credential_bbjwt.installations.installation import CLOUD_BASE_URL, Installation


def known_urls(catalogue: Catalogue) -> list[str]:
    """Return the base URLs of all installations; without any, Bitbucket Cloud's."""
    return [f"https://{host}" for host in catalogue.hosts()] or [CLOUD_BASE_URL]


def workspace_urls(installations: Iterable[Installation]) -> list[str]:
    """Return the URLs of the workspaces that ``installations`` name."""
    return list(dict.fromkeys(f"https://{one.host}/{name}" for one in installations for name in one.workspaces))


def _helper_value(words: list[str]) -> str:
    """Return how git's configuration names the helper with the options ``words``.

    By its absolute path, because cron and desktops have no PATH.
    """
    called = sys.argv[0]
    if os.path.basename(called).removesuffix(".exe") != APP_NAME:
        called = shutil.which(APP_NAME) or called
    path = os.path.abspath(called)
    if os.name == "nt":  # Git for Windows runs a helper by a Unix shell.
        path = path.replace("\\", "/") + ("" if path.lower().endswith(".exe") else ".exe")
    return " ".join(map(_shell_word, [path, *words]))


def _shell_word(text: str) -> str:
    """Escape a word for the shell that git runs a helper by; quotes would hide from git that a path is absolute."""
    # A backslash before a line break would remove both.
    return "".join(c if c.isalnum() or c in "/._-+@%=:," else "'\n'" if c == "\n" else "\\" + c for c in text)


def entries(
    urls: Iterable[str], options: HelperOptions, *, exclusive: bool, rewrite_ssh: bool, proactive: Iterable[str] = ()
) -> list[Entry]:
    """Return the settings for ``urls``, in the order in which git reads them (gitcredentials(7), git-config(1)).

    For the workspaces' URLs ``proactive`` git 2.46 and later sends the token with its first request.
    """
    helper = _helper_value(helper_words(options))
    wanted = []
    for url in urls:
        wanted += [(f"credential.{url}.helper", value) for value in (("", helper) if exclusive else (helper,))]
        wanted.append((f"credential.{url}.useHttpPath", "true"))
        wanted += [(f"url.{url}/.insteadOf", form) for form in (_ssh_forms(url) if rewrite_ssh else ())]
    return wanted + [(f"http.{url}/.proactiveAuth", "basic") for url in proactive]


def _ssh_forms(url: str) -> list[str]:
    """Return how URLs begin that reach what is below ``url`` by ssh."""
    host, slash, workspace = url.removeprefix("https://").partition("/")
    return [form + workspace + slash for form in ssh_forms(host)]


class ConfigLevel:
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
            present = self._file.values(key)
            if key.endswith(".helper"):
                old, new = _helper_changes(present, values, options)
            elif key.endswith(".insteadOf"):
                old, new = [], [value for value in values if value not in present]
            else:
                old, new = ([], []) if present[-1:] == values else (present, values)
            if new and old == present != []:
                self._file.replace(key, new)
            else:
                self._file.remove(key, old)
                for value in new:
                    self._file.add(key, value)
            written += [(key, value) for value in new]
        return written

    def options_on_line(self, url: str) -> list[str]:
        """Return the names of the options that this helper's lines for exactly ``url`` have."""
        lines = [Helper(value) for value in self._file.values(f"credential.{url}.helper")]
        words = [word for line in lines if line.is_this_one for word in line.options]
        return [word.partition("=")[0] for word in words if word.startswith("--")]

    def move_to_end(self, url: str) -> None:
        """Write the helpers of ``url`` again, behind all that the file has: git reads helpers in the file's order.

        Raises CredentialError.
        """
        keys = (f"credential.{url}.helper", f"credential.{url}.useHttpPath")
        values = {key: self._file.values(key) for key in keys}
        for key in keys:  # A section moves if it was empty.
            self._file.remove(key, values[key])
        for key in keys:
            for value in values[key]:
                self._file.add(key, value)

    def replace_other_urls(self, urls: list[str]) -> None:
        """Remove this helper's entries for a whole host if ``urls`` are for its workspaces, and the other way round.

        An entry that has other options than the new ones stays. Raises CredentialError.
        """
        new = {url: self._file.values(f"credential.{url}.helper") for url in urls}
        for url, values in _this_helpers(self._file).items():
            covering = [one for one in urls if one != url and (_is_within(url, one) or _is_within(one, url))]
            if url not in urls and any(set(values) <= set(new[one]) for one in covering):
                _remove(self._file, url, values, is_replaced=True)

    def entries(self) -> list[Entry]:
        """Return this helper's entries, by URL. Raises CredentialError."""
        files = files_to_read(self.name)
        return [(url, value) for file in files for url, values in _this_helpers(file).items() for value in values]

    def remove(self) -> list[Entry]:
        """Remove this helper's entries, and what belongs to them; return them. Raises CredentialError."""
        removed: list[Entry] = []
        for file in files_to_read(self.name):
            for url, values in _this_helpers(file).items():
                removed += _remove(file, url, values)
        return removed


def _helper_changes(present: list[str], wanted: list[str], options: HelperOptions) -> tuple[list[str], list[str]]:
    """Return the values of a key ``helper`` to remove, and those to add after the rest."""
    earlier = [value for value in present if Helper(value).is_this_one]
    new = list(dict.fromkeys(_renewed(value, options) for value in earlier)) or [value for value in wanted if value]
    others = [value for value in present if value not in earlier]
    reset = [""] if "" in wanted and others[-1:] != [""] else []
    is_reset = "" not in wanted or present[-len(earlier) - 1 : -len(earlier)] == [""]
    return ([], []) if earlier == new and is_reset else (earlier, reset + new)


def _renewed(earlier: str, options: HelperOptions) -> str:
    """Return the ``earlier`` value with the program as it is now, and with ``options``. Raises CredentialError."""
    line = Helper(earlier)
    words = line.options
    if line.trouble and not helper_words(options):
        what = f"the helper line that git's configuration has cannot be used: {line.trouble}"
        raise CredentialError(what, f"run: {APP_NAME} unconfigure; then try again with the options that it needs")
    if helper_words(options):
        if not line.trouble:  # Git could use the earlier line.
            options = merged(parse_options(words)[0], options)
        options.check()
        words = helper_words(options)
    return _helper_value(words)


def _is_within(url: str, other: str) -> bool:
    return url == other or url.startswith(other + "/")


def _this_helpers(file: ConfigurationFile) -> dict[str, list[str]]:
    """Return this helper's values by the URL of their section, which is empty for ``credential.helper``."""
    found: dict[str, list[str]] = {}
    for setting in file.settings():
        if setting.key.startswith("credential.") and setting.name == "helper" and Helper(setting.value).is_this_one:
            found.setdefault(setting.url, []).append(setting.value)
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
    if url and not any(left):
        removed += dict.fromkeys((key, value) for value in left)
        beside = [one for one in file.settings() if _belongs(one, url.rstrip("/"), is_replaced=is_replaced)]
        removed += [(one.key, one.value) for one in beside]
    for key in dict.fromkeys(key for key, _ in removed):
        file.remove(key, [value for name, value in removed if name == key])
    return removed


def _belongs(setting: Setting, base: str, *, is_replaced: bool) -> bool:
    """Return whether ``setting`` is one that `entries` writes beside a helper for ``base``."""
    section, url = setting.key.partition(".")[0], setting.url.rstrip("/")
    if (section, setting.name) == ("http", "proactiveauth"):
        return _is_within(url, base) and not is_replaced
    is_rewriting = (section, setting.name) == ("url", "insteadof") and setting.value in _ssh_forms(base)
    return url == base and (is_rewriting or (section, setting.name) == ("credential", "usehttppath"))
