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

from git_credential_bbjwt.commands.command_line import slug
from git_credential_bbjwt.core.failures import UsageError
from git_credential_bbjwt.core.files import APP_NAME
from git_credential_bbjwt.core.options import HelperOptions
from git_credential_bbjwt.core.output import counted, note, warning
from git_credential_bbjwt.core.repository import CLOUD_HOST, is_name
from git_credential_bbjwt.core.sources import read_sources
from git_credential_bbjwt.git.entries import ConfigLevel, entries, known_urls, workspace_urls
from git_credential_bbjwt.git.helper_lines import beside_this_one, path_switch
from git_credential_bbjwt.git.run import PROACTIVE, SECTIONS_FOR_PATHS, dotted, git_version, need_git
from git_credential_bbjwt.installations.catalogue import Catalogue

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
        type=slug,
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
    if arguments.workspace:
        need_git(
            SECTIONS_FOR_PATHS,
            "configure --workspace",
            "leave --workspace out: the helper says nothing for workspaces it has no installation for",
        )
    catalogue = Catalogue(read_sources(options))
    bases = _base_urls(catalogue, options)
    urls = [f"{base}/{workspace}" for base in bases for workspace in arguments.workspace] or bases
    exclusive = arguments.exclusive or os.name == "nt"
    proactive: list[str] = []
    if arguments.proactive:
        proactive = urls if arguments.workspace else _known_workspaces(catalogue)
    wanted = entries(urls, options, exclusive=exclusive, rewrite_ssh=arguments.rewrite_ssh, proactive=proactive)
    level = ConfigLevel(arguments.level)
    written = level.write(wanted, options)
    level.replace_other_urls(urls)
    show(f"git config --{arguments.level} {_spelled(*entry)}" for entry in written)
    if not written:
        note(f"git's {arguments.level} configuration has it already")
    for url in urls:
        if exclusive and beside_this_one(url)[2]:
            level.move_to_end(url)
        kept = [name for name in level.options_on_line(url) if name not in options.given]
        kept = [name for name in dict.fromkeys(kept) if options.broker is None or name != "--broker"]
        if kept:
            what = f"the helper line for {url} keeps its options ({', '.join(kept)})"
            note(f"{what}; to drop them, first run: {APP_NAME} unconfigure")
        _warn_of_others(url, exclusive=exclusive)
    if arguments.proactive and git_version() < PROACTIVE:
        note(
            f"--proactive has no effect yet: git {dotted(PROACTIVE)} or newer uses it, this is {dotted(git_version())}"
        )
    return 0


def _base_urls(catalogue: Catalogue, options: HelperOptions) -> list[str]:
    """Return the URLs to configure: those that the options are about, else those of registered installations."""
    if options.broker is not None or options.hosts:
        return [f"https://{host}" for host in options.hosts or (CLOUD_HOST,)]
    if "--installation" in options.given or "--installation-command" in options.given:
        return known_urls(catalogue)
    return [f"https://{host}" for host in catalogue.registered_hosts()] or known_urls(catalogue)


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
    urls = workspace_urls(catalogue)
    hint = f"name them: {APP_NAME} configure --proactive --workspace SLUG"
    if len(urls) > _MOST_WORKSPACES:
        raise UsageError(f"--proactive is for {_MOST_WORKSPACES} workspaces at most", hint)
    if not urls:
        raise UsageError("--proactive is for workspaces, and no installation names one", hint)
    return urls


def _warn_of_others(url: str, *, exclusive: bool) -> None:
    """Warn of helpers that are asked first or store tokens, and of a later setting that hides the path from this one.

    Raises GitError.
    """
    switch = path_switch(url)
    if switch is not None and not switch.is_on:
        what = f"useHttpPath is off in {switch.file}, so git will not say which repository it wants"
        warning(f"{what}; correct it: {switch.edit}")
    before, this_one, after = beside_this_one(url)
    others = [(one, "is asked before this helper, and may answer with another password") for one in before if this_one]
    others += [(one, "is offered this helper's tokens after use, and stores them") for one in after if one.stores]
    for helper, what in others:
        only = f" --workspace {this_one.path}" if this_one is not None and is_name(this_one.path) else ""
        remedy = f"to ask this helper only: {APP_NAME} configure --exclusive{only}"
        if exclusive:
            remedy = f"remove it from {helper.file}, which git reads later"
        warning(f"{helper.described} {what} for {url}; {remedy}")
