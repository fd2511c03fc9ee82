"""What `configure` writes into git's configuration, and a journal of it, so that `unconfigure` removes exactly that."""

import json
import os
import shutil
import sys
from collections.abc import Sequence
from typing import Any

from git_credential_bbjwt.core.failures import OWN_HOME, CredentialError, InstallationError
from git_credential_bbjwt.git import helper_lines
from git_credential_bbjwt.git.run import run_git
from git_credential_bbjwt.installations.catalogue import Catalogue
from git_credential_bbjwt.installations.installation import CLOUD_BASE_URL
from git_credential_bbjwt.system.lock import FileLock
from git_credential_bbjwt.system.places import APP_NAME, git_home, site_config_folder, user_config_folder, why_no_home
from git_credential_bbjwt.system.private_folder import PrivateFolder, remove_if_empty

_JOURNAL = "configured.json"

Entry = tuple[str, str]


def base_urls(catalogue: Catalogue) -> list[str]:
    """The base URLs to configure: the registered ones; else an injected installation's; else Bitbucket Cloud's."""
    return [f"https://{host}" for host in catalogue.registered_hosts()] or known_urls(catalogue)


def known_urls(catalogue: Catalogue) -> list[str]:
    """The base URLs of all installations there are; Bitbucket Cloud's where there are none."""
    return [f"https://{host}" for host in catalogue.hosts()] or [CLOUD_BASE_URL]


def executable() -> str:
    """The absolute path of the installed command. Raises CredentialError where it is not installed."""
    called = sys.argv[0]
    if os.path.basename(called).removesuffix(".exe") == APP_NAME:
        return _for_git(called)
    found = shutil.which(APP_NAME)
    if found is None:
        raise CredentialError(f"{APP_NAME} is not installed as a command", "run ./install.sh, or use pipx")
    return _for_git(found)


def _for_git(path: str) -> str:
    """An absolute path as the shell takes it that git runs a helper by; on Windows it knows no backslashes."""
    path = os.path.abspath(path)
    if os.name == "nt":
        path = path.replace("\\", "/")
        path = path if path.lower().endswith(".exe") else path + ".exe"
    return path


def helper_value(options: Sequence[str] = ()) -> str:
    """How git's configuration is to name the helper: by its absolute path, for cron and desktops know no PATH."""
    return " ".join(shell_word(word) for word in (executable(), *options))


def shell_word(path: str) -> str:
    """Escape a word for the shell that git runs a helper by; quotes would hide from git that a path is absolute."""
    return "".join(c if c.isalnum() or c in "/._-+@%=:," else "\\" + c for c in path)


def entries(url: str, helper: str, *, exclusive: bool, rewrite_ssh: bool) -> list[Entry]:
    """The settings for one URL, in the order git has to read them (gitcredentials(7), git-config(1))."""
    section = f"credential.{url}"
    wanted = [(f"{section}.helper", "")] if exclusive else []
    wanted += [(f"{section}.helper", helper), (f"{section}.useHttpPath", "true")]
    if rewrite_ssh:
        host, _, workspace = url.removeprefix("https://").partition("/")
        # ssh has a port of its own: the forms of the site name none.
        name = host[: host.rfind("]") + 1] or host.partition(":")[0]
        tail = f"{workspace}/" if workspace else ""
        for form in (f"git@{name}:{tail}", f"ssh://git@{name}/{tail}"):
            wanted.append((f"url.{url}/.insteadOf", form))
    return wanted


class GitConfiguration:
    """One of git's configuration files (``--global``, ``--system``, ``--local``) and our journal of it."""

    def __init__(self, level: str) -> None:
        """Raises CredentialError outside a repository for ``local``."""
        self.level = level
        folder = site_config_folder() if level == "system" else user_config_folder()
        if folder is None:
            raise InstallationError(
                f"there is no home folder of yours to keep a journal in{why_no_home()}",
                OWN_HOME,
            )
        self._folder_path = folder
        self._name = level
        if level == "global":
            file = self._global_file()
            if file != os.path.abspath(f"{git_home()}/.gitconfig"):
                self._name = f"global {file}"
        if level == "local":
            self._name = "local " + os.path.abspath(run_git("rev-parse", "--git-common-dir").strip())

    def _global_file(self) -> str:
        """The file git writes ``--global`` settings into (git-config(1), "FILES"). Raises CredentialError.

        One that is no regular file is refused: git would put a file in the place of a device or a FIFO.
        """
        home = git_home()
        xdg = (os.environ.get("XDG_CONFIG_HOME") or f"{home}/.config") + "/git/config"
        file = os.environ.get("GIT_CONFIG_GLOBAL", "")
        if not file:
            file = f"{home}/.gitconfig"
            if not os.path.exists(file) and os.path.exists(xdg):
                file = xdg
        file = os.path.abspath(file)
        if os.path.exists(file) and not os.path.isfile(file):
            raise CredentialError(
                f"git's global configuration is {file}, which is not a regular file: it is left as it is",
                "switch the helper on for one command: git-credential-bbjwt exec -- git clone URL",
            )
        return file

    def write(self, wanted: list[Entry]) -> bool:
        """Make ``wanted`` what stands there of ours for its URLs; False where it stood there already.

        What we wrote for other hosts, or for other workspaces where ``wanted`` is for workspaces too, stays.
        """
        with _Journal(self._folder_path, shared=self.level == "system") as journal:
            ours = journal.entries(self._name)
            replaced = [entry for entry in ours if any(_concerns(one, entry) for one in wanted)]
            if set(replaced) <= set(wanted) and self._found(wanted) == wanted:
                return False
            self._remove(journal, replaced)
            self._remove_dead({key for key, value in wanted if value and key.endswith(".helper")})
            before = self._files()
            kept = journal.created(self._name)
            added = journal.entries(self._name)
            resets = {key for key, value in wanted if not value}
            changed = False
            for key, plain in wanted:
                value = plain
                stands = value and (self._found([(key, value)]) or self._stands_by_name(key, value))
                if stands and key not in resets:
                    continue  # It is not ours to remove later.
                if stands:
                    # It must come after the reset, and yet be told apart from the one that stands there.
                    value = shell_word(executable())
                run_git("config", f"--{self.level}", "--add", key, value)
                changed = True
                added.append((key, value))
                journal.set(self._name, added, kept + [path for path in self._files() if path not in before])
            return changed

    def remove(self) -> bool:
        """Remove what is ours; False where nothing was."""
        with _Journal(self._folder_path, shared=self.level == "system") as journal:
            return self._remove(journal, journal.entries(self._name))

    def _remove(self, journal: "_Journal", leaving: list[Entry]) -> bool:
        for key in dict.fromkeys(key for key, _ in leaving):
            self._unset(key, [value for of, value in leaving if of == key])
        for path in journal.created(self._name):
            if os.path.isfile(path) and os.path.getsize(path) == 0:
                os.unlink(path)
        staying = [entry for entry in journal.entries(self._name) if entry not in leaving]
        journal.set(self._name, staying, [path for path in journal.created(self._name) if os.path.exists(path)])
        return bool(leaving)

    def _unset(self, key: str, ours: list[str]) -> None:
        level = f"--{self.level}"
        output = run_git("config", level, "-z", "--show-origin", "--get-all", key, check=False)
        fields = output.split("\0")[:-1]
        standing = fields[1::2]
        mine = [value for value in ours if value in standing]
        if not mine:
            return
        if all(standing.count(value) == 1 for value in mine):
            for value in mine:
                run_git("config", level, "--unset", key, _exactly(value))
        else:
            # The same value stands there twice, and git cannot remove one of them: ours is the later one.
            for value in mine:
                del standing[len(standing) - 1 - standing[::-1].index(value)]
            run_git("config", level, "--unset-all", key)
            for value in standing:
                run_git("config", level, "--add", key, value)
        # Git leaves an empty section where a comment stands before it.
        section = key.rpartition(".")[0]
        if _has_empty_section(fields[0].removeprefix("file:"), section):
            run_git("config", level, "--remove-section", section)

    def _stands_by_name(self, key: str, value: str) -> bool:
        """Whether somebody wrote ``bbjwt`` there for the very command that ``value`` names by its path."""
        if not key.endswith(".helper") or value != helper_value() or not self._found([(key, "bbjwt")]):
            return False
        on_path = shutil.which(APP_NAME)
        return on_path is not None and os.path.samefile(on_path, executable())

    def _remove_dead(self, keys: set[str]) -> None:
        """Remove entries that name this helper by a path where nothing is any more: git would fail on each of them."""
        for key in keys:
            output = run_git("config", f"--{self.level}", "-z", "--get-all", key, check=False)
            for value in dict.fromkeys(output.split("\0")[:-1]):
                if helper_lines.Helper(value, "").is_dead:
                    run_git("config", f"--{self.level}", "--unset-all", key, _exactly(value))

    def _found(self, wanted: list[Entry]) -> list[Entry]:
        """Those of ``wanted`` that stand in the file, in their order."""
        found = []
        for key in dict.fromkeys(key for key, _ in wanted):
            output = run_git("config", f"--{self.level}", "-z", "--get-all", key, check=False)
            found += [(key, value) for value in output.split("\0")[:-1]]
        return [entry for entry in wanted if entry in found]

    def _files(self) -> list[str]:
        """The files ``--global`` may mean (git-config(1), "FILES") that exist; other levels' files always do."""
        if self.level != "global":
            return []
        home = git_home()
        xdg = os.environ.get("XDG_CONFIG_HOME") or f"{home}/.config"
        candidates = [os.environ.get("GIT_CONFIG_GLOBAL", ""), f"{home}/.gitconfig", f"{xdg}/git/config"]
        return [path for path in candidates if path and os.path.exists(path)]


def _concerns(wanted: Entry, ours: Entry) -> bool:
    """Whether ``wanted`` takes the place of ``ours``: the same URL, or one of both is for the other's whole host."""
    # "https:", "", the host, perhaps a workspace.
    one, other = (key.partition(".")[2].rpartition(".")[0].rstrip("/").split("/") for key, _ in (wanted, ours))
    return one[2] == other[2] and (one == other or 3 in (len(one), len(other)))


def _exactly(value: str) -> str:
    """An extended regular expression that matches ``value`` alone: git before 2.30 knows no fixed values."""
    return "^" + "".join(c if c.isalnum() else f"[{c}]" if c not in "^\\" else "\\" + c for c in value) + "$"


def _has_empty_section(path: str, section: str) -> bool:
    """Whether the last section of that name in a configuration file holds nothing, no comment either."""
    kind, _, url = section.partition(".")
    header = f'[{kind} "{url}"]'.encode()
    try:
        with open(path, "rb") as file:
            before, found, rest = file.read().rpartition(header)
    except OSError:
        return False
    return bool(found) and (not rest.strip() or rest.lstrip().startswith(b"[")) and header not in before


class _Journal:
    """The settings we added, by configuration file, and the files that only exist because we did."""

    def __init__(self, folder_path: str, *, shared: bool) -> None:
        self._path = f"{folder_path}/{_JOURNAL}"
        self._folder_path = folder_path
        self._mode = 0o755 if shared else 0o700
        self._content: dict[str, Any] = {}

    def __enter__(self) -> "_Journal":
        try:
            self._folder = PrivateFolder(self._folder_path, create=True, mode=self._mode)
            self._lock = FileLock(self._folder, _JOURNAL + ".lock")
            self._lock.__enter__()
        except OSError as problem:
            raise CredentialError(
                f"cannot write {self._path}: {problem.strerror}", "check who owns the folder; --system needs root"
            ) from problem
        try:
            found = json.loads(self._folder.read(_JOURNAL) or b"{}")
        except ValueError:
            found = {}
        self._content = found if isinstance(found, dict) else {}
        return self

    def __exit__(self, *exc: object) -> None:
        self._lock.__exit__()
        self._folder.close()
        remove_if_empty(self._folder.path)

    def entries(self, name: str) -> list[Entry]:
        return [(key, value) for key, value in self._content.get(name, {}).get("entries", [])]

    def created(self, name: str) -> list[str]:
        return list(self._content.get(name, {}).get("created", []))

    def set(self, name: str, entries: list[Entry], created: list[str]) -> None:
        if entries:
            self._content[name] = {"entries": entries, "created": created}
        else:
            self._content.pop(name, None)
        if self._content:
            self._folder.write(_JOURNAL, json.dumps(self._content, indent=2).encode() + b"\n", durable=True)
        else:
            self._folder.remove(_JOURNAL)
