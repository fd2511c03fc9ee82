"""Checks of what git really sends for a URL: settings can add another address, a password, or a header.

Sources: git-config(1) (``url.<base>.insteadOf``, ``http.extraHeader``), git-ls-remote(1) (``--get-url``),
libcurl's CURLOPT_NETRC (git lets curl read ``~/.netrc``).
"""

import os
from collections.abc import Iterator
from shlex import quote
from urllib.parse import SplitResult, urlsplit

from git_credential_bbjwt.commands.checks.check import Check, failed, note
from git_credential_bbjwt.core.clone_urls import parse_url
from git_credential_bbjwt.core.failures import NotARepositoryError
from git_credential_bbjwt.core.places import APP_NAME, git_home, home_is_anothers
from git_credential_bbjwt.core.repository import Repository, normal_host
from git_credential_bbjwt.core.server_text import safe_text
from git_credential_bbjwt.git.http_settings import url_match
from git_credential_bbjwt.git.run import run_git
from git_credential_bbjwt.git.settings import Setting, read_settings

_NAME = "what git sends"

# A netrc file has a line or three for each host.
_LONGEST_NETRC = 1024 * 1024


def check(text: str, repository: Repository) -> Iterator[Check]:
    """Check where git goes for the URL ``text``, and for this folder's remotes of the same target. Raises GitError."""
    url = f"https://{repository.host}/{repository.full_name}"
    found = list(_address("the URL", text, _without_user(text), repository, f"use this URL: {url}"))
    for remote, value in _remotes(repository):
        if value != text:
            # Git finds the remote's URL itself: an argument would show a password in it to other users.
            remedy = f"git remote set-url {quote(remote)} {url}"
            found += _address(f"the URL of the remote {remote}", value, remote, repository, remedy)
    found += _headers(url)
    found += _netrc(repository)
    # Several remotes may have the same trouble.
    yield from dict.fromkeys(found)


def _address(whose: str, text: str, argument: str, repository: Repository, remedy: str) -> Iterator[Check]:
    """Check the URL ``text``, which git gets as ``argument``."""
    real = run_git("ls-remote", "--get-url", argument).strip()
    is_rewritten = real not in (text, _without_user(text))
    rule = _rule_for(text) if is_rewritten else None
    by = f" (insteadOf in {rule.file})" if rule is not None else ""
    if rule is not None:
        remedy = _removal(rule)
    parts = _split(real)
    if parts is None or parts.scheme not in ("https", "http"):
        if rule is None or _is_ssh(real):
            remedy = remedy if rule is not None else f"run: {APP_NAME} configure --rewrite-ssh"
            yield failed(_NAME, f"git goes by ssh for {whose}{by}, and asks no credential helper", remedy)
        else:
            yield failed(_NAME, f"git does not go by https for {whose}{by}", remedy)
        return
    if parts.scheme == "http":
        yield failed(_NAME, f"git goes by plain http for {whose}{by}, where no token is sent", remedy)
    host = normal_host(parts.netloc.rpartition("@")[2])
    if host != repository.host:
        yield failed(_NAME, f"git goes to {host} for {whose}{by}, not to {repository.host}", remedy)
    written = parts if is_rewritten else _split(text) or parts
    if written.password is not None:
        yield failed(_NAME, f"git sends the password in {whose}{by} instead of this helper's token", remedy)
    elif written.username:
        yield note(_NAME, f"{whose}{by} has a user name, which costs git two requests more", remedy)


def _without_user(url: str) -> str:
    """Return an https URL without user name and password."""
    scheme, separator, rest = url.partition("://")
    authority, slash, path = rest.partition("/")
    if not separator or scheme.lower() not in ("https", "http"):
        return url
    return f"{scheme}://{authority.rpartition('@')[2]}{slash}{path}"


def _rule_for(text: str) -> Setting | None:
    """Return the rule ``url.<base>.insteadOf`` that git applies: the longest that matches, of those the first."""
    rules = [rule for rule in read_settings(r"^url\..*\.insteadof$") if text.startswith(rule.value)]
    return max(rules, key=lambda rule: len(rule.value), default=None)


def _removal(setting: Setting) -> str:
    """Return the command that removes a setting; a key that may hold a password or token is not shown."""
    if not setting.is_in_file:
        return "unset the variables GIT_CONFIG_COUNT and GIT_CONFIG_PARAMETERS"
    key = setting.key
    has_user = "@" in key and not key.lower().startswith(("url.git@", "url.ssh://git@"))
    if has_user or safe_text(key, len(key)) != key:
        return f"remove it: git config --file {quote(setting.file)} --edit"
    return f"git config --file {quote(setting.file)} --unset-all {quote(key)}"


def _split(url: str) -> SplitResult | None:
    try:
        parts = urlsplit(url)
        return parts if parts.hostname else None
    except ValueError:
        return None


def _is_ssh(url: str) -> bool:
    scheme, separator, _ = url.partition("://")
    return scheme.lower() in ("ssh", "git+ssh", "ssh+git") if separator else ":" in url


def _remotes(repository: Repository) -> Iterator[tuple[str, str]]:
    """Return the remotes of the current repository that fetch from ``repository``, with their URLs."""
    for remote in read_settings(r"^remote\..*\.url$"):
        try:
            if parse_url(remote.value) == repository:
                yield remote.url, remote.value
        except NotARepositoryError:
            continue


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
