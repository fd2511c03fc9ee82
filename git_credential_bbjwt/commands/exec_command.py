"""Run one command with the helper switched on for it and its children alone.

Works through the environment (GIT_CONFIG_COUNT, git 2.31 or newer): no configuration file is changed. For the hosts
concerned no other helper is asked, and none is given the token to keep. Where there is no private runtime folder, as in
containers, tokens are kept in a folder made for this run and removed at its end. The exit status is the command's.

Examples:
  git-credential-bbjwt exec -- git clone https://bitbucket.org/acme/widgets
  git-credential-bbjwt exec --rewrite-ssh -- make dependencies
"""

import argparse
import os
import sys

from git_credential_bbjwt.commands.run_folder import become, run_with_folder
from git_credential_bbjwt.core.failures import UsageError
from git_credential_bbjwt.core.options import HelperOptions, with_scope
from git_credential_bbjwt.git.configure import entries, executable, known_urls, shell_word
from git_credential_bbjwt.git.run import SETTINGS_BY_ENVIRONMENT, need_git
from git_credential_bbjwt.installations.catalogue import Catalogue
from git_credential_bbjwt.installations.sources import PATH_VARIABLES, read_sources
from git_credential_bbjwt.system.ownership import is_private
from git_credential_bbjwt.system.places import user_runtime_base


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("--scope", metavar="SCOPE", help="scope of the tokens")
    parser.add_argument("--rewrite-ssh", action="store_true", help="make ssh URLs of these hosts use https instead")
    parser.add_argument("words", nargs=argparse.REMAINDER, metavar="-- COMMAND [ARG ...]", help="what to run")


def execute(options: HelperOptions, arguments: argparse.Namespace) -> int:
    """Become the command. Raises UsageError, and GitError for a git that is too old."""
    words = arguments.words[1:] if arguments.words[:1] == ["--"] else arguments.words
    if not words:
        raise UsageError("exec needs a command to run", "git-credential-bbjwt exec -- git clone URL")
    need_git(SETTINGS_BY_ENVIRONMENT, "exec", "use git-credential-bbjwt configure instead")
    if arguments.scope is not None:
        options = with_scope(options, arguments.scope)
    helper = shell_word(executable()) + "".join(f" {shell_word(word)}" for word in _helper_options(options))
    wanted = []
    catalogue = Catalogue(read_sources(options))
    catalogue.warn_of_exposed()
    for url in known_urls(catalogue):
        wanted += entries(url, helper, exclusive=True, rewrite_ssh=arguments.rewrite_ssh)
    environment = dict(os.environ)
    first = _config_count(environment)
    for number, (key, value) in enumerate(wanted, start=first):
        environment[f"GIT_CONFIG_KEY_{number}"] = key
        environment[f"GIT_CONFIG_VALUE_{number}"] = value
    environment["GIT_CONFIG_COUNT"] = str(first + len(wanted))
    # cargo's own git sees nothing of what is set here.
    environment.setdefault("CARGO_NET_GIT_FETCH_WITH_CLI", "true")
    for name in PATH_VARIABLES:
        # Git runs the helper where the repository is.
        if environment.get(name) and os.path.exists(environment[name]):
            environment[name] = os.path.abspath(environment[name])
    sys.stdout.flush()
    runtime = user_runtime_base()
    if options.token_store != "runtime" or (runtime is not None and is_private(runtime)):
        become(words, environment)
    return run_with_folder(words, environment)


def _helper_options(options: HelperOptions) -> list[str]:
    """The options this very command was given, for the helper it switches on."""
    words = [f"--token-store={options.token_store}", f"--timeout={options.timeout:g}"]
    if options.broker is None:
        words.append(f"--scope={options.scope}")
    else:
        words.append(f"--broker={options.broker}")
    if options.installation_command is not None:
        words.append(f"--installation-command={options.installation_command}")
    words += [f"--host={host}" for host in options.hosts]
    if options.app:
        words.append(f"--app={options.app}")
    words += [f"--allow={pattern}" for pattern in options.allow]
    if options.installation is not None:
        words.append(f"--installation={os.path.abspath(options.installation)}")
    if options.verbose:
        words.append("--verbose")
    return words


def _config_count(environment: dict[str, str]) -> int:
    """How many settings the environment holds already; ours come after them."""
    text = environment.get("GIT_CONFIG_COUNT", "") or "0"
    if not text.isascii() or not text.isdigit():
        raise UsageError("GIT_CONFIG_COUNT in the environment is not a number", "unset it")
    return int(text)
