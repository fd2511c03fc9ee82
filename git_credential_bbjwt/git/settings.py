"""Settings of git's configuration, read and written by ``git config``."""

import os
import sys
from functools import cache
from shlex import quote
from typing import NamedTuple

from git_credential_bbjwt.core.failures import OWN_HOME, CredentialError
from git_credential_bbjwt.core.files import is_anothers, user_config_folder, why_no_home
from git_credential_bbjwt.core.remedies import as_root
from git_credential_bbjwt.git.run import SEARCHED, SECTIONS_FOR_PATHS, UNSET_SETTINGS, GitError, git_version, run_git

#: The key of a setting and its value.
Entry = tuple[str, str]

#: The hint for a GIT_CONFIG_GLOBAL that hides the user's own configuration.
UNSET_GLOBAL = "run: unset GIT_CONFIG_GLOBAL"

_EXEC_HINT = "switch the helper on for one command: git-credential-bbjwt exec -- git clone URL"
_OTHER_WAYS = f"{_EXEC_HINT}; or write to another file: git-credential-bbjwt configure --system"


def is_false(value: str) -> bool:
    """Return whether ``value`` is a false boolean for git (git-config(1), "Values")."""
    return value.lower() in ("false", "no", "off", "0", "")


class Setting(NamedTuple):
    """One setting. ``origin`` and ``scope`` are git's own words for its place (git-config(1), ``--show-origin``).

    If ``has_value`` is false, the file has the key alone, which git reads as true.
    """

    value: str
    key: str = ""
    origin: str = ""
    scope: str = ""
    has_value: bool = True

    @property
    def url(self) -> str:
        """The part of its key between section and name, such as a URL, or nothing."""
        return self.key.partition(".")[2].rpartition(".")[0]

    @property
    def name(self) -> str:
        """The last part of its key, in lower case."""
        return self.key.rpartition(".")[2]

    @property
    def is_on(self) -> bool:
        """Whether it is true, if it is a boolean."""
        return not is_false(self.value)

    @property
    def is_in_file(self) -> bool:
        """Whether a file has it, and not the environment or the command line."""
        return self.origin.startswith("file:")

    @property
    def file(self) -> str:
        """The file that has it, in words for people."""
        return os.path.abspath(self.origin.removeprefix("file:")) if self.is_in_file else "the environment"

    @property
    def edit(self) -> str:
        """The command with which a person corrects or removes it."""
        return f"git config --file {quote(self.file)} --edit" if self.is_in_file else UNSET_SETTINGS


#: The scopes of a repository's own settings, which its author wrote. Git itself uses them, because git's password opens
#: that repository only. A JWT opens the whole workspace.
FOLDERS_OWN = ("local", "worktree")


def parse_settings(output: str, *, scope: str = "") -> list[Setting]:
    """Return the settings that ``git config -z --show-scope --show-origin --get-regexp`` prints, in git's order.

    With a ``scope`` that is the scope of all, and none is printed.
    """
    fields = output.split("\0")[:-1]
    width = 2 if scope else 3
    settings = []
    for start in range(0, len(fields) - width + 1, width):
        *printed, origin, line = fields[start : start + width]
        key, newline, value = line.partition("\n")
        settings.append(Setting(value if newline else "true", key, origin, scope or printed[0], bool(newline)))
    return settings


@cache
def read_settings(pattern: str, *place: str) -> list[Setting]:
    """Return the settings with a key that matches ``pattern``, in git's order, each call the same until a change.

    ``place`` are options of ``git config`` that name one file, by default all apply. Raises GitError.
    """
    # Before 2.26 git has no --show-scope. Any setting may be a repository's own then, and is treated so.
    has_scopes = not place and git_version() >= SECTIONS_FOR_PATHS
    show = ("--show-scope", "--show-origin") if has_scopes else ("--show-origin",)
    words = ("config", *place, "-z", *show, "--get-regexp", pattern)
    try:
        output = run_git(*words, statuses=SEARCHED, is_outside=_is_one_file(place))
    except GitError:
        if place:
            raise
        output = run_git(*words, statuses=SEARCHED, is_outside=True)  # The repository of this folder is broken.
    return parse_settings(output, scope="" if has_scopes else "local")


def _is_one_file(place: tuple[str, ...]) -> bool:
    """Return whether ``place`` names a file by its path. Then a broken repository in this folder does not matter."""
    return place[:1] == ("--file",)


class ConfigurationFile:
    """One file of git's configuration. ``place`` are the options of ``git config`` that name it."""

    def __init__(self, *place: str) -> None:
        self._place = place

    def settings(self) -> list[Setting]:
        """Return all settings of credentials, URLs and http, in the file's order."""
        return read_settings(r"^(credential|url|http)\.", *self._place)

    def values(self, key: str) -> list[str]:
        """Return the values of ``key``."""
        section, _, rest = key.partition(".")
        between, dot, name = rest.rpartition(".")
        printed = f"{section.lower()}.{between}{dot}{name.lower()}"  # As git prints it.
        return [setting.value for setting in self.settings() if setting.key == printed]

    def add(self, key: str, value: str) -> None:
        """Add a value after those that are there. Raises CredentialError."""
        self._write("--add", key, value)

    def remove(self, key: str, values: list[str]) -> None:
        """Remove ``values`` of ``key``, which the file has. Raises CredentialError."""
        present = set(self.values(key))
        if present and present.issubset(values):
            self._write("--unset-all", key)  # No pattern matches a key that is written without a value.
            return
        for value in dict.fromkeys(values):
            self._write("--unset-all", key, _exactly(value))

    def replace(self, key: str, values: list[str]) -> None:
        """Make ``values``, of which there is at least one, the only ones, in their order. Raises CredentialError."""
        first, *others = values
        self._write("--replace-all", key, first)  # One step, so that a kill does not leave the setting out.
        for value in others:
            self.add(key, value)

    def _write(self, *arguments: str) -> None:
        read_settings.cache_clear()
        try:
            run_git("config", *self._place, *arguments, is_outside=_is_one_file(self._place))
        except GitError as problem:
            if not problem.hint.startswith("run git config"):  # It names the cause.
                raise
            hint = "see who owns the file and its folder (ls -ld)"
            if self._place[0] == "--file" and arguments[0] in ("--add", "--replace-all"):
                hint = _OTHER_WAYS
            elif self._place[0] == "--system":
                hint = as_root(hint)
            raise CredentialError(problem.what, hint) from problem


def written_by_configure(setting: Setting) -> bool:
    """Return whether ``setting`` is in the file that `configure` writes by default. Raises CredentialError."""
    return setting.is_in_file and os.path.realpath(setting.file) == os.path.realpath(_global_files()[0])


def file_to_write(level: str) -> ConfigurationFile:
    """Return the file that git writes settings of ``level`` (global, system, local) to. Raises CredentialError."""
    if level != "global":
        if level == "local":
            _check_repository()
        return ConfigurationFile(f"--{level}")
    path = _global_files()[0]
    if os.path.exists(path) and not os.path.isfile(path):
        raise CredentialError(f"cannot write git's configuration {path}: it is not a regular file", _OTHER_WAYS)
    return ConfigurationFile("--file", path)


def _check_repository() -> None:
    """Raise CredentialError if git finds no usable repository here."""
    try:
        run_git("rev-parse", "--git-common-dir")
    except GitError as problem:
        if not problem.hint.startswith("run git rev-parse"):  # It names the cause.
            raise
        hint = "change into a repository for --local; if you are in one, see: git status"
        raise CredentialError(problem.what, hint) from problem


def files_to_read(level: str) -> list[ConfigurationFile]:
    """Return the files that have settings of ``level``. Raises CredentialError."""
    if level != "global":
        return [file_to_write(level)]
    return [ConfigurationFile("--file", path) for path in _global_files() if os.path.isfile(path)]


def _global_files() -> list[str]:
    """Return the user's files, the one that git writes to first (git-config(1), "FILES"). Raises CredentialError."""
    if user_config_folder() is None:
        raise CredentialError(f"there is no home folder for git's configuration{why_no_home()}", OWN_HOME)
    named = os.environ.get("GIT_CONFIG_GLOBAL")
    if named == "":
        raise CredentialError("GIT_CONFIG_GLOBAL is empty, so git reads no global configuration", UNSET_GLOBAL)
    if named is not None:
        return [os.path.abspath(named)]
    home = git_home()
    base = "" if is_anothers("XDG_CONFIG_HOME") else os.environ.get("XDG_CONFIG_HOME", "")
    files = [f"{home}/.gitconfig", f"{base or f'{home}/.config'}/git/config"]
    if not os.path.exists(files[0]) and os.path.exists(files[1]):
        files.reverse()
    return [os.path.abspath(path) for path in files]


def git_home() -> str:
    """Return the folder of git's ``.gitconfig`` (git-config(1), "FILES"; Git for Windows asks Windows)."""
    home = os.environ.get("HOME", "")
    if sys.platform == "win32" and not home:
        home = os.environ.get("HOMEDRIVE", "") + os.environ.get("HOMEPATH", "") or os.environ.get("USERPROFILE", "")
    return home.replace("\\", "/") if sys.platform == "win32" else home


def _exactly(value: str) -> str:
    """Return an extended regular expression that matches ``value`` only: git before 2.30 knows no fixed values."""
    return "^" + "".join(c if c.isalnum() else f"[{c}]" if c not in "^\\" else "\\" + c for c in value) + "$"
