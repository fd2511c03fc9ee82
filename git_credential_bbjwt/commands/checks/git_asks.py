"""Checks that git asks this helper as it should: git's version, the helper line, the helpers beside it."""

import os
import re
import shutil
import sys
from collections.abc import Generator, Iterator
from shlex import quote

from git_credential_bbjwt.commands.checks.check import Check, Subject, failed, note, passed
from git_credential_bbjwt.core.failures import OWN_HOME, CredentialError
from git_credential_bbjwt.core.files import APP_NAME, home_is_anothers
from git_credential_bbjwt.core.option_table import helper_words, merged
from git_credential_bbjwt.core.options import HelperOptions
from git_credential_bbjwt.core.repository import is_name
from git_credential_bbjwt.core.sources import VARIABLES
from git_credential_bbjwt.git import helper_lines
from git_credential_bbjwt.git.entries import known_urls
from git_credential_bbjwt.git.run import PROACTIVE, SECTIONS_FOR_PATHS, SETTINGS_BY_ENVIRONMENT, dotted, git_version
from git_credential_bbjwt.git.settings import FOLDERS_OWN, UNSET_GLOBAL, git_home, read_settings, written_by_configure

_NAME = "git configuration"

# Older ones may work; none is tested.
_OLDEST = (2, 24)

# Features of newer versions that people may miss.
_ADDED = (
    (SECTIONS_FOR_PATHS, "is needed for configure --workspace"),
    (SETTINGS_BY_ENVIRONMENT, "is needed for exec"),
    ((2, 40), "does not use expired tokens that another helper stored"),
    (PROACTIVE, "asks again in the same command if the server refuses a token"),
)

_SET_HOME = """run: export HOME="$(getent passwd "$(id -u)" | cut -d: -f6)\""""
_CONFIGURE = f"run: {APP_NAME} configure"


def version() -> Generator[Check, None, bool]:
    """Check git's version; return whether git can be asked about its configuration."""
    try:
        found = git_version()
    except CredentialError as problem:
        yield failed("git", problem.what, problem.hint)
        return False
    if found < _OLDEST:
        yield failed("git", f"version {dotted(found)} is too old", f"install git {dotted(_OLDEST)} or newer")
        return False
    yield passed("git", f"version {dotted(found)}")
    newer = [f"{dotted(since)} {what}" for since, what in _ADDED if found < since]
    if newer:
        yield note("git", f"git {'; '.join(newer)}")
    return True


def variables() -> Iterator[Check]:
    """Name the helper's variables that are empty, which is often a slip in a CI system's settings."""
    for name in VARIABLES:
        if os.environ.get(name) == "":
            yield note("environment", f"{name} is empty, and is treated as not set")


def python() -> Iterator[Check]:
    """Note that the system's Python was upgraded after the helper was installed."""
    made_for = re.search(r"/python(\d+\.\d+)/site-packages/", __file__)
    this = f"{sys.version_info[0]}.{sys.version_info[1]}"
    if made_for is not None and made_for[1] != this:
        what = f"the helper was installed for Python {made_for[1]} and runs on {this}, where keyring backends may fail"
        yield note("Python", what, "install it again: ./install.sh")


def options_of_line(url: str, given: HelperOptions) -> HelperOptions:
    """Return the options on the helper line for ``url``; those in ``given`` take precedence. Raises GitError."""
    options = next(helper_lines.options_for(url), None)
    if options is None:
        return given
    if given.broker is not None:  # The broker chooses the scope.
        names = tuple(name for name in options.given if name != "--scope")
        options = options.replaced(scope=HelperOptions().scope, given=names)
    return merged(options, given)


def _stops() -> Iterator[Check]:
    """Find settings of credentials without a value, even boolean ones: git stops there. Raises GitError."""
    for setting in read_settings(r"^credential\."):
        if not setting.has_value:
            what = f"git stops at {setting.key} in {setting.file}, because it has no value"
            yield failed(_NAME, what, f"write = true after it, or remove it: {setting.edit}")


def check(subject: Subject) -> Iterator[Check]:
    """Check that git asks this helper for the repository, or for all workspaces. Raises GitError."""
    yield from _stops()
    workspaces = [f"{one.base_url}/{name}" for one in subject.installations for name in one.workspaces]
    if subject.repository is not None:
        yield from _asks(subject, subject.repository.url)
        yield from _broker(subject, subject.repository.url)
        for url in workspaces:
            yield from _proactive(url)
        return
    hosts = [one.base_url for one in subject.installations if not one.workspaces]
    for url in dict.fromkeys(workspaces + hosts or known_urls(subject.catalogue)):
        found = list(_asks(subject, url))
        yield from found
        if any(one.ok is False for one in found):
            return  # The others would have the same remedy.


def _asks(subject: Subject, url: str) -> Iterator[Check]:
    """Check that git asks this helper for ``url``, first, and with the path. Raises GitError."""
    before, this, after = helper_lines.beside_this_one(url)
    if this is None:
        yield _not_asked(subject, url)
        return
    only = f" --workspace {this.path}" if is_name(this.path) else ""
    configure, exclusive = f"run: {APP_NAME} configure{only}", f"run: {APP_NAME} configure --exclusive{only}"
    what, remedy = "", configure if written_by_configure(this) else f"correct it: {this.edit}"
    if this.program == "bbjwt" and shutil.which(APP_NAME) is None:
        what = f"{this.file} names bbjwt, which is not on PATH"
    elif this.is_dead:
        what = f"{this.file} names {this.program}, by which git finds no program"
    elif this.trouble:
        what = f"the helper line in {this.file} cannot be used: {this.trouble}"
        remedy = f"correct it: {this.edit}"
    if what:
        yield failed(_NAME, what, remedy)
        return
    if before:
        names = ", ".join(helper.described for helper in before)
        what = f"git asks {names} before this helper for {url}; it may answer first, or keep expired tokens"
        yield failed(_NAME, what, exclusive)
    switch = helper_lines.path_switch(url)
    if switch is None or not switch.is_on:
        what = f"git does not say which repository of {url} it wants, because useHttpPath is off"
        if switch is not None and (switch.file, switch.url) != (this.file, this.url):
            yield failed(_NAME, f"{what} in {switch.file}", f"correct it: {switch.edit}")
        else:
            yield failed(_NAME, what, configure)
    elif not before:
        yield passed(_NAME, f"git asks this helper for {url}, with the path")
    for helper in after:
        # Git reads a repository's own settings, and often those of a workspace, after what `configure` writes.
        is_later = helper.scope in FOLDERS_OWN or not helper.is_in_file or helper.path not in ("", this.path)
        remedy = f"remove it: {helper.edit}" if is_later else exclusive
        if helper.described.startswith("store "):
            yield failed(_NAME, f"{helper.described} writes this helper's tokens to a file in the clear", remedy)
        elif helper.stores:
            yield note(_NAME, f"{helper.described} stores this helper's tokens after use", remedy)


def _broker(subject: Subject, url: str) -> Iterator[Check]:
    """Check that git's helper line names the broker if only BBJWT_BROKER does. Raises GitError."""
    line = next(helper_lines.options_for(url), None)
    if line is None or line.broker is not None or subject.installations:
        return
    if subject.options.broker is not None and os.environ.get("BBJWT_BROKER"):
        what = "git does not use the broker of BBJWT_BROKER, which only this helper's own commands and exec read"
        yield failed(_NAME, what, _CONFIGURE)


def _not_asked(subject: Subject, url: str) -> Check:
    # A job that brings its installation along may switch the helper on by `exec` only.
    is_injected = bool(subject.asked) or any(not one.secret_place.is_registered for one in subject.installations)
    # Only options are repeated. A variable may hold a secret, and both commands read it, too.
    given = [word for word in helper_words(subject.options) if word.partition("=")[0] in subject.options.given]
    command = " ".join([APP_NAME, *map(quote, given)])
    configure = f"{command} configure"
    execute = f"for one command: {command} exec -- git clone {url if subject.repository is not None else 'URL'}"
    unread = _why_settings_are_not_read()
    named = [helper for helper in helper_lines.every() if helper.is_this_one]
    what = f"git does not ask this helper for {url}"
    wrapper = next((helper for helper in helper_lines.helpers_for(url) if helper.may_call_this_one), None)
    if wrapper is not None:
        return note(_NAME, f"git asks a shell command ({wrapper.file}) that names this helper; it is not checked")
    if not named and is_injected:
        why, remedy = unread or ("", configure)
        because = f", because {why}" if why else ""
        return note(_NAME, f"{what} except under exec{because}", f"{execute}; for good: {remedy}")
    remedy = f"run: {configure}" + (f"; or {execute}" if is_injected else "")
    reset = helper_lines.reset_after_this_one(url)
    if unread is not None:
        why, remedy = unread
        what += f", because {why}"
    elif reset is not None:
        what += f", because an empty helper in {reset.file} resets it"
        removal = f"git config --file {quote(reset.file)} --unset-all {quote(reset.key)} '^$'"
        remedy = f"remove the reset: {removal if reset.is_in_file else reset.edit}"
    elif named:
        what += f"; {named[0].file} names it for other URLs"
    return failed(_NAME, what, remedy)


def _why_settings_are_not_read() -> tuple[str, str] | None:
    """Return the reason and the remedy if git cannot read this user's settings; None if it can."""
    home, named = git_home(), os.environ.get("GIT_CONFIG_GLOBAL")
    if home_is_anothers():
        return "HOME belongs to another user", OWN_HOME
    if named == "" or (named and os.path.exists(named) and not os.path.isfile(named)):
        return f"GIT_CONFIG_GLOBAL makes git read {named or 'no file'} instead of your configuration", UNSET_GLOBAL
    if not home:
        return "HOME is not set", _SET_HOME
    if not os.path.isdir(home):
        return f"HOME names no folder: {home}", _SET_HOME
    above = os.environ.get("XDG_CONFIG_HOME") or f"{home}/.config"
    files = [named or f"{home}/.gitconfig", f"{above}/git/config"]
    for file in files:
        if os.path.lexists(file) and not os.access(file, os.R_OK):
            return f"it cannot read {file}", f"check who owns it, and its mode: ls -l {quote(file)}"
    return None


def _proactive(workspace_url: str) -> Iterator[Check]:
    """Note that git could send the token with its first request. Raises GitError."""
    if git_version() >= PROACTIVE and not helper_lines.is_proactive(workspace_url):
        what = f"git could send the token with its first request to {workspace_url}, which saves a round trip"
        yield note("speed", what, f"{APP_NAME} configure --workspace {workspace_url.rpartition('/')[2]} --proactive")
