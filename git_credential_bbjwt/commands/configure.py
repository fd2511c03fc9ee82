"""Switch the helper on in git's configuration.

Writes credential.URL.helper and credential.URL.useHttpPath. The options of the
helper that are given are written on the helper line. A line that is there
keeps its other options; to drop them, run unconfigure first. Running it again
changes nothing.

Examples:
  git-credential-bbjwt configure
  git-credential-bbjwt configure --exclusive --rewrite-ssh
  git-credential-bbjwt configure --workspace acme --proactive
  git-credential-bbjwt configure --broker 'ssh -T broker'
"""

import argparse
import os
import shlex
from collections.abc import Iterable

from git_credential_bbjwt.core.failures import UsageError
from git_credential_bbjwt.core.option_table import helper_words
from git_credential_bbjwt.core.options import HelperOptions
from git_credential_bbjwt.core.output import counted, note, warning
from git_credential_bbjwt.core.repository import CLOUD_HOST, is_name
from git_credential_bbjwt.git import helper_lines
from git_credential_bbjwt.git.configuration_file import Entry
from git_credential_bbjwt.git.configure import Level, base_urls, entries, helper_value, known_urls, proactive_entry
from git_credential_bbjwt.git.run import PROACTIVE, SECTIONS_FOR_PATHS, dotted, git_version, need_git
from git_credential_bbjwt.installations.catalogue import Catalogue
from git_credential_bbjwt.installations.sources import read_sources

# Each is a setting of its own. So many are written in a second or two.
_MOST_WORKSPACES = 100

# Lines that a person reads.
_MOST_LINES = 20


def add_level(parser: argparse.ArgumentParser) -> None:
    """Declare which of git's configuration files is meant."""
    level = parser.add_mutually_exclusive_group()
    meant = {
        "global": "in your git configuration (default)",
        "system": "in the configuration for all users",
        "local": "in this repository's configuration only",
    }
    for name, whose in meant.items():
        level.add_argument(f"--{name}", dest="level", action="store_const", const=name, default="global", help=whose)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    add_level(parser)
    parser.add_argument(
        "--workspace",
        action="append",
        default=[],
        metavar="SLUG",
        help="only this workspace (git 2.26 or newer); repeatable",
    )
    parser.add_argument(
        "--exclusive", action="store_true", help="make git ask no other helper for these URLs, nor let one keep tokens"
    )
    parser.add_argument("--rewrite-ssh", action="store_true", help="make ssh URLs of these hosts use https instead")
    parser.add_argument(
        "--proactive",
        action="store_true",
        help="make git 2.46 or newer send the token with its first request to these workspaces",
    )


def execute(options: HelperOptions, arguments: argparse.Namespace) -> int:
    """Write the settings. Raises UsageError and CredentialError."""
    options.check_id_token()
    workspaces = [workspace.lower() for workspace in arguments.workspace]
    if not all(map(is_name, workspaces)):
        raise UsageError("--workspace needs the slug in the workspace's URLs")
    if workspaces:
        need_git(
            SECTIONS_FOR_PATHS,
            "configure --workspace",
            "leave --workspace out: the helper says nothing for workspaces it has no installation for",
        )
    catalogue = Catalogue(read_sources(options))
    if options.broker is not None or options.hosts:
        bases = [f"https://{host}" for host in options.hosts or (CLOUD_HOST,)]
    elif {"--installation", "--installation-command"} & set(options.given):
        bases = known_urls(catalogue)
    else:
        bases = base_urls(catalogue)
    urls = [f"{base}/{workspace}" for base in bases for workspace in workspaces] or bases
    exclusive = arguments.exclusive or os.name == "nt"
    helper = helper_value(helper_words(options))
    wanted: list[Entry] = []
    for url in urls:
        wanted += entries(url, helper, exclusive=exclusive, rewrite_ssh=arguments.rewrite_ssh)
    if arguments.proactive:
        wanted += [proactive_entry(url) for url in (urls if workspaces else _known_workspaces(catalogue))]
    level = Level(arguments.level)
    written = level.write(wanted, options)
    level.replace_other_urls(urls)
    show(f"git config --{arguments.level} {_spelled(*entry)}" for entry in written)
    if not written:
        note(f"git's {arguments.level} configuration has it already")
    helper_lines.read_again()
    for url in urls if exclusive else ():
        if _helpers_after(url):
            level.move_to_end(url)
    helper_lines.read_again()
    _say_what_was_kept(urls, options)
    _warn_of_others(urls, exclusive=exclusive)
    if arguments.proactive and git_version() < PROACTIVE:
        note(
            f"--proactive has no effect yet: git {dotted(PROACTIVE)} or newer uses it, this is {dotted(git_version())}"
        )
    return 0


def show(lines: Iterable[str]) -> None:
    """Show what was done to git's configuration; more than a screen of it is counted."""
    shown = list(lines)
    for line in shown[:_MOST_LINES]:
        note(line)
    if len(shown) > _MOST_LINES:
        note(f"and {counted(len(shown) - _MOST_LINES, 'setting')} more")


def _spelled(key: str, value: str) -> str:
    how = "--add" if key.endswith((".helper", ".insteadOf")) else "--replace-all"
    return f"{how} {shlex.quote(key)} {shlex.quote(value)}"


def _known_workspaces(catalogue: Catalogue) -> list[str]:
    """Return the URLs of the workspaces that installations name. Raises UsageError if there are none, or too many."""
    urls: dict[str, None] = {}
    for one in catalogue:
        urls.update(dict.fromkeys(f"https://{one.host}/{workspace}" for workspace in one.workspaces))
        if len(urls) > _MOST_WORKSPACES:
            raise UsageError(f"--proactive is for {_MOST_WORKSPACES} workspaces at most", "name them: --workspace SLUG")
    if not urls:
        raise UsageError("--proactive is for workspaces, and no installation names one", "name it: --workspace SLUG")
    return list(urls)


def _say_what_was_kept(urls: list[str], options: HelperOptions) -> None:
    for url in urls:
        names = [word.partition("=")[0] for helper in _this_one(url) for word in helper.options if word[:2] == "--"]
        kept = [name for name in names if name not in (*options.given, "--broker" if options.broker else "")]
        if kept:
            shown = ", ".join(dict.fromkeys(kept))
            note(f"the helper line for {url} keeps its options ({shown}); to drop them, run unconfigure first")


def _this_one(url: str) -> list[helper_lines.Helper]:
    return [helper for helper in helper_lines.helpers_for(url) if helper.is_this_one]


def _helpers_after(url: str) -> list[helper_lines.Helper]:
    helpers = helper_lines.helpers_for(url)
    last = max((place for place, helper in enumerate(helpers) if helper.is_this_one), default=len(helpers))
    return helpers[last + 1 :]


def _warn_of_others(urls: list[str], *, exclusive: bool) -> None:
    """Warn of helpers that are asked first or store tokens. Raises GitError."""
    for url in urls:
        helpers = helper_lines.helpers_for(url)
        places = [place for place, helper in enumerate(helpers) if helper.is_this_one]
        for place, helper in enumerate(helpers if places else ()):
            if place < places[0]:
                what = "is asked before this helper, and may answer with another password"
            elif helper.stores:
                what = "is offered this helper's tokens after use, and stores them"
            else:
                continue
            remedy = "to ask this helper only: git-credential-bbjwt configure --exclusive"
            if exclusive:
                remedy = f"remove it from {helper.file}, which git reads later"
            warning(f"{helper.name} ({helper.file}) {what} for {url}; {remedy}")
