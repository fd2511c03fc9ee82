"""Git's ``http.*`` settings for a URL, as git itself resolves them (git-config(1), ``http.<url>.*``)."""

import threading

from git_credential_bbjwt.core.output import trace, warning
from git_credential_bbjwt.git.run import SEARCHED, GitError, run_git
from git_credential_bbjwt.git.settings import FOLDERS_OWN, Setting, parse_settings
from git_credential_bbjwt.system import child_process


class Settings:
    """The ``http.*`` settings that apply to one URL, by lower-case name without the leading ``http.``."""

    def __init__(self, values: dict[str, list[str]]) -> None:
        self._values = values

    def last(self, name: str) -> str | None:
        """Return the value of a setting that has one; None if it is not set."""
        values = self._values.get(name)
        return values[-1] if values else None

    def every(self, name: str) -> list[str]:
        """Return the values of a setting that may have several: an empty one drops those before it."""
        found: list[str] = []
        for value in self._values.get(name, []):
            found = [*found, value] if value else []
        return found


class HttpSettings:
    """Git's ``http.*`` settings for all URLs, read by one ``git config`` that starts at once.

    A repository's own settings are not used; one warning names those that would have chosen the route to Bitbucket.
    Conditional includes of the user's own files apply as in git.
    """

    def __init__(self) -> None:
        self._settings: list[Setting] | GitError | None = None
        self._lock = threading.Lock()
        self._has_warned = False
        try:
            command = ["git", "config", "--show-scope", *_ARGUMENTS]
            self._process = child_process.Spawned(command, child_process.for_git())
        except FileNotFoundError:
            trace("git is not there, and so it has no settings")
            self._settings = []
        except OSError as problem:
            self._settings = GitError(f"cannot run git: {problem.strerror}", "check the limits: ulimit -a")

    def for_url(self, url: str) -> Settings:
        """Return the settings that apply to ``url``. Raises GitError if git cannot read its configuration."""
        with self._lock:  # Two connections ask at the same time.
            if self._settings is None:
                try:
                    self._settings = self._read()
                except GitError as problem:
                    self._settings = problem
        if isinstance(self._settings, GitError):
            raise self._settings
        best: dict[str, tuple[int, int, int]] = {}
        values: dict[str, list[str]] = {}
        ignored = []
        for setting in self._settings:
            rank = url_match(setting.url, url) if setting.url else (0, 0, 0)
            if rank is None:
                continue
            if setting.scope in FOLDERS_OWN:
                if setting.name in CHOOSE_THE_WAY:
                    ignored.append(f"http.{setting.name}")
                continue
            if rank >= best.get(setting.name, rank):
                best[setting.name] = rank
                values.setdefault(setting.name, []).append(setting.value)
        if ignored and not self._has_warned:
            self._has_warned = True
            warning(
                f"a repository's own configuration does not choose the route to {url.split('/')[2]}; not used: "
                f"{', '.join(sorted(set(ignored)))}. Put it into your own: git config --global"
            )
        return Settings(values)

    def _read(self) -> list[Setting]:
        status, output = self._process.finish()
        if status in SEARCHED:
            return parse_settings(output.decode("utf-8", "surrogateescape"))
        # Git before 2.26 has no --show-scope, and git stops at a broken repository. Neither may unset the user's pin.
        found = run_git("config", *_ARGUMENTS, statuses=SEARCHED, is_outside=True)
        return parse_settings(found, scope="global")


_ARGUMENTS = ("--show-origin", "-z", "--get-regexp", r"^http\.")

#: The settings of ``http.*`` that choose the route of a request and the server that gets it.
CHOOSE_THE_WAY = frozenset(
    {
        "curloptresolve",
        "pinnedpubkey",
        "proxy",
        "proxyauthmethod",
        "proxysslcainfo",
        "proxysslcert",
        "proxysslkey",
        "sslcainfo",
        "sslcapath",
        "sslcert",
        "sslcerttype",
        "sslcipherlist",
        "sslkey",
        "sslkeytype",
        "sslverify",
        "sslversion",
    }
)


def url_match(pattern: str, url: str) -> tuple[int, int, int] | None:
    """Return how well a section's URL matches ``url``: more is better, None if it does not match.

    Source: git-config(1), ``http.<url>.*``: scheme and port must be the same, each label of the host too, or be ``*``;
    then the longest host, the longest path and a user name win, in this order.
    """
    from urllib.parse import unquote, urlsplit  # Every caller has a URL, so it is loaded by then.

    try:
        wanted, given = urlsplit(pattern), urlsplit(url)
        same_port = (wanted.port or 443) == (given.port or 443)
    except ValueError:
        return None
    if wanted.scheme.lower() != given.scheme or not same_port:
        return None
    if wanted.username is not None and wanted.username != given.username:
        return None
    labels, found = (wanted.hostname or "").split("."), (given.hostname or "").split(".")
    if len(labels) != len(found) or any(one not in ("*", other) for one, other in zip(labels, found, strict=True)):
        return None
    path = unquote(wanted.path).rstrip("/")
    if given.path.rstrip("/") != path and not given.path.startswith(path + "/"):
        return None
    return len(wanted.hostname or ""), len(path), int(wanted.username is not None)
