"""Switch the helper on in git's configuration, for the registered hosts or some of their workspaces.

Writes credential.URL.helper and credential.URL.useHttpPath through git config itself; running it again changes nothing,
and `unconfigure` removes exactly what was written.

Examples:
  git-credential-bbjwt configure
  git-credential-bbjwt configure --exclusive --rewrite-ssh
  git-credential-bbjwt configure --workspace acme
  git-credential-bbjwt configure --broker 'ssh -T broker'
"""

import argparse

from git_credential_bbjwt.core.failures import UsageError
from git_credential_bbjwt.core.options import HelperOptions
from git_credential_bbjwt.core.output import note
from git_credential_bbjwt.core.repository import CLOUD_HOST, is_name
from git_credential_bbjwt.git.configure import GitConfiguration, base_urls, entries, helper_value
from git_credential_bbjwt.git.run import SECTIONS_FOR_PATHS, need_git
from git_credential_bbjwt.installations.catalogue import Catalogue
from git_credential_bbjwt.installations.sources import read_sources


def add_level(parser: argparse.ArgumentParser) -> None:
    """Declare which of git's configuration files is meant."""
    level = parser.add_mutually_exclusive_group()
    meant = {
        "global": "write to your git configuration (default)",
        "system": "write to the configuration for all users",
        "local": "write to this repository's configuration only",
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
        help="only this workspace (git 2.26 or newer); may be given several times",
    )
    parser.add_argument(
        "--exclusive", action="store_true", help="make git ask no other helper for these URLs, nor let one keep tokens"
    )
    parser.add_argument("--rewrite-ssh", action="store_true", help="make ssh URLs of these hosts use https instead")


def execute(options: HelperOptions, arguments: argparse.Namespace) -> int:
    """Write the settings. Raises UsageError and GitError."""
    for workspace in arguments.workspace:
        if not is_name(workspace.lower()):
            raise UsageError("--workspace needs the slug that stands in the workspace's URLs")
    if arguments.workspace:
        need_git(
            SECTIONS_FOR_PATHS,
            "configure --workspace",
            "leave --workspace out: the helper says nothing for workspaces it has no installation for",
        )
    helper = helper_value(options.words())
    if options.broker is None:
        urls = base_urls(Catalogue(read_sources(options)))
    else:
        urls = [f"https://{host}" for host in options.hosts or (CLOUD_HOST,)]
    wanted = []
    for base_url in urls:
        for url in [f"{base_url}/{workspace}" for workspace in arguments.workspace] or [base_url]:
            wanted += entries(url, helper, exclusive=arguments.exclusive, rewrite_ssh=arguments.rewrite_ssh)
    changed = GitConfiguration(arguments.level).write(wanted)
    if not changed:
        note(f"git's {arguments.level} configuration has it already")
        return 0
    for key, value in wanted:
        note(f"git config --{arguments.level} {key} {value!r}")
    return 0
