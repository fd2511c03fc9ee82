"""The files of git's configuration that `configure` writes to, read and written by ``git config``."""

import os

from git_credential_bbjwt.core.failures import OWN_HOME, CredentialError
from git_credential_bbjwt.core.places import git_home, is_anothers, user_config_folder, why_no_home
from git_credential_bbjwt.git.run import GitError, run_git

#: A setting: its key and its value.
Entry = tuple[str, str]

_EXEC_HINT = "switch the helper on for one command: git-credential-bbjwt exec -- git clone URL"
_OTHER_WAYS = f"{_EXEC_HINT}; or write to another file: git-credential-bbjwt configure --system"


class ConfigurationFile:
    """One file of git's configuration. ``place`` are the options of ``git config`` that name it."""

    def __init__(self, *place: str) -> None:
        self.place = place

    def settings(self) -> list[Entry]:
        """Return all settings of credentials, URLs and http, in the file's order."""
        output = run_git("config", *self.place, "-z", "--get-regexp", r"^(credential|url|http)\.", check=False)
        fields = [field.partition("\n") for field in output.split("\0")[:-1]]
        return [(key, value if newline else "true") for key, newline, value in fields]

    def values(self, key: str) -> list[str]:
        """Return the values of ``key``."""
        return [value for name, value in self.settings() if name == normal_key(key)]

    def add(self, key: str, value: str) -> None:
        """Add a value after those that are there. Raises CredentialError."""
        self._write("--add", key, value)

    def set(self, key: str, value: str) -> None:
        """Make ``value`` the only one. Raises CredentialError."""
        self._write("--replace-all", key, value)

    def remove(self, key: str, value: str) -> None:
        """Remove each ``value`` of ``key``. Raises CredentialError."""
        # A switch may be written without a value, which no pattern matches.
        is_switch = key.lower().endswith((".usehttppath", ".proactiveauth"))
        self._write("--unset-all", key, *(() if is_switch else (_exactly(value),)))

    def clear(self, key: str) -> None:
        """Remove all values of ``key``, of which there is one at least. Raises CredentialError."""
        self._write("--unset-all", key)

    def replace(self, key: str, values: list[str]) -> None:
        """Make ``values`` the only ones, in their order. Raises CredentialError."""
        self.clear(key)
        for value in values:
            self.add(key, value)

    def _write(self, *arguments: str) -> None:
        try:
            run_git("config", *self.place, *arguments)
        except GitError as problem:
            hint = _OTHER_WAYS if self.place[0] == "--file" else "see who owns the file and its folder (ls -ld)"
            raise CredentialError(problem.what, hint) from problem


def file_to_write(level: str) -> ConfigurationFile:
    """Return the file that git writes settings of ``level`` (global, system, local) to. Raises CredentialError."""
    if level != "global":
        if level == "local":
            run_git("rev-parse", "--git-common-dir")
        return ConfigurationFile(f"--{level}")
    path = _global_files()[0]
    if os.path.exists(path) and not os.path.isfile(path):
        raise CredentialError(f"cannot write git's configuration {path}: it is not a regular file", _OTHER_WAYS)
    return ConfigurationFile("--file", path)


def files_to_read(level: str) -> list[ConfigurationFile]:
    """Return the files that have settings of ``level``. Raises CredentialError."""
    if level != "global":
        return [file_to_write(level)]
    return [ConfigurationFile("--file", path) for path in _global_files() if os.path.isfile(path)]


def _global_files() -> list[str]:
    """Return the user's files, the one that git writes to first (git-config(1), "FILES"). Raises CredentialError."""
    if user_config_folder() is None:
        raise CredentialError(f"there is no home folder for git's configuration{why_no_home()}", OWN_HOME)
    named = os.environ.get("GIT_CONFIG_GLOBAL", "")
    if named:
        return [os.path.abspath(named)]
    home = git_home()
    base = "" if is_anothers("XDG_CONFIG_HOME") else os.environ.get("XDG_CONFIG_HOME", "")
    files = [f"{home}/.gitconfig", f"{base or f'{home}/.config'}/git/config"]
    if not os.path.exists(files[0]) and os.path.exists(files[1]):
        files.reverse()
    return [os.path.abspath(path) for path in files]


def normal_key(key: str) -> str:
    """Return ``key`` as git prints it: section and name in lower case, what is between them as it is."""
    section, _, rest = key.partition(".")
    between, dot, name = rest.rpartition(".")
    return f"{section.lower()}.{between}{dot}{name.lower()}"


def _exactly(value: str) -> str:
    """Return an extended regular expression that matches ``value`` only: git before 2.30 knows no fixed values."""
    return "^" + "".join(c if c.isalnum() else f"[{c}]" if c not in "^\\" else "\\" + c for c in value) + "$"
