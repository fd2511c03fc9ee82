"""Checks of what git really sends for a URL: settings can add another address, a password, or a header.

Sources: git-config(1) (``url.<base>.insteadOf``, ``http.extraHeader``), git-ls-remote(1) (``--get-url``),
libcurl's CURLOPT_NETRC (git lets curl read ``~/.netrc``).
"""

import os
from collections.abc import Iterator
from shlex import quote

from git_credential_bbjwt.commands.checks.check import Check, failed, note
from git_credential_bbjwt.core.failures import NotARepositoryError
from git_credential_bbjwt.core.files import APP_NAME, home_is_anothers
from git_credential_bbjwt.core.repository import Repository, normal_host
from git_credential_bbjwt.core.server_text import safe_text
from git_credential_bbjwt.git.clone_urls import parse_url
from git_credential_bbjwt.git.http_settings import url_match
from git_credential_bbjwt.git.run import run_git
from git_credential_bbjwt.git.settings import Setting, git_home, read_settings

_NAME = "what git sends"

# A netrc file has a line or three for each host.
_LONGEST_NETRC = 1024 * 1024


def check(text: str, repository: Repository) -> Iterator[Check]:
    """Check where git goes for the URL ``text``, and for this folder's remotes of the same target. Raises GitError."""
    found = list(_address("the URL", text, _without_user(text), repository, f"use this URL: {repository.url}"))
    for remote in read_settings(r"^remote\..*\.url$"):
        if remote.value != text and _names(remote.value, repository):
            # Git finds the remote's URL itself: an argument would show a password in it to other users.
            remedy = f"git remote set-url {quote(remote.url)} {repository.url}"
            found += _address(f"the URL of the remote {remote.url}", remote.value, remote.url, repository, remedy)
    found += _headers(repository.url)
    found += _netrc(repository)
    # Several remotes may have the same trouble.
    yield from dict.fromkeys(found)


def _names(url: str, repository: Repository) -> bool:
    try:
        return parse_url(url) == repository
    except NotARepositoryError:
        return False


def _address(whose: str, text: str, argument: str, repository: Repository, remedy: str) -> Iterator[Check]:
    """Check the URL ``text``, which git gets as ``argument``."""
    real = run_git("ls-remote", "--get-url", argument).strip()
    is_rewritten = real not in (text, argument)
    rule = _rule_for(text) if is_rewritten else None
    if rule is not None:
        whose, remedy = f"{whose} (insteadOf in {rule.file})", _removal(rule)
    scheme = real.partition("://")[0].lower() if "://" in real else "ssh" if ":" in real else ""
    if scheme in ("ssh", "git+ssh", "ssh+git"):
        remedy = remedy if rule is not None else f"run: {APP_NAME} configure --rewrite-ssh"
        yield failed(_NAME, f"git goes by ssh for {whose}, and asks no credential helper", remedy)
        return
    if scheme not in ("https", "http"):
        yield failed(_NAME, f"git does not go by https for {whose}", remedy)
        return
    if scheme == "http":
        yield failed(_NAME, f"git goes by plain http for {whose}, where no token is sent", remedy)
    user, host = _user_and_host(real)
    if host != repository.host:
        yield failed(_NAME, f"git goes to {host} for {whose}, not to {repository.host}", remedy)
    if not is_rewritten:
        user, _ = _user_and_host(text)
    if ":" in user:
        yield failed(_NAME, f"git sends the password in {whose} instead of this helper's token", remedy)
    elif user:
        yield note(_NAME, f"{whose} has a user name, which costs git two requests more", remedy)


def _user_and_host(url: str) -> tuple[str, str]:
    """Return the user name of an https URL, with its password, and its host."""
    user, _, host = url.partition("://")[2].partition("/")[0].rpartition("@")
    return user, normal_host(host)


def _without_user(url: str) -> str:
    """Return an https URL without user name and password; other URLs as they are."""
    if not url.lower().startswith(("https://", "http://")):
        return url
    scheme, _, rest = url.partition("://")
    authority, slash, path = rest.partition("/")
    return f"{scheme}://{authority.rpartition('@')[2]}{slash}{path}"


def _rule_for(text: str) -> Setting | None:
    """Return the rule ``url.<base>.insteadOf`` that git applies: the longest that matches, of those the first."""
    rules = [rule for rule in read_settings(r"^url\..*\.insteadof$") if text.startswith(rule.value)]
    return max(rules, key=lambda rule: len(rule.value), default=None)


def _removal(setting: Setting) -> str:
    """Return the command that removes a setting.

    A key that may hold a password or token is not shown. If the file has other values of the key, they must stay.
    """
    key = setting.key
    has_user = "@" in key and not key.lower().startswith(("url.git@", "url.ssh://git@"))
    beside = [one for one in read_settings(r"^(url|http)\.") if (one.key, one.origin) == (key, setting.origin)]
    if has_user or safe_text(key, len(key)) != key or len(beside) > 1 or not setting.is_in_file:
        return f"remove it: {setting.edit}"
    return f"git config --file {quote(setting.file)} --unset-all {quote(key)}"


def _headers(url: str) -> Iterator[Check]:
    sent: list[Check] = []
    for header in read_settings(r"^http\.(.*\.)?extraheader$"):
        if header.url and url_match(header.url, url) is None:
            continue
        if not header.value:
            sent.clear()  # An empty value forgets all before it.
        if header.value.partition(":")[0].strip().lower() == "authorization":
            what = f"http.extraHeader in {header.file} sends an Authorization header instead of this helper's token"
            sent.append(failed(_NAME, what, _removal(header)))
    yield from sent


def _netrc(repository: Repository) -> Iterator[Check]:
    if home_is_anothers():
        return
    name = repository.host.partition(":")[0]
    for file in (".netrc", "_netrc") if os.name == "nt" else (".netrc",):
        path = f"{git_home()}/{file}"
        try:
            with open(path, encoding="utf-8", errors="replace") as netrc:
                words = netrc.read(_LONGEST_NETRC).lower().split()
        except OSError:
            continue
        machines = [words[place + 1] for place, word in enumerate(words[:-1]) if word == "machine"]
        if name in machines or "default" in words:
            which = f"machine {name}" if name in machines else "default"
            what = f"git sends the login of {path} ({which}) before it asks this helper"
            yield failed(_NAME, what, f"remove the entry {which} from {path}")
