"""Run one command with the helper switched on for it and its children alone.

Works through the environment (GIT_CONFIG_COUNT, git 2.31 or newer): no file is touched. For the hosts concerned no
other helper is asked, and none is given the token to keep. The exit status is the command's.

Examples:
  git-credential-bbjwt exec -- git clone https://bitbucket.org/acme/widgets
  git-credential-bbjwt exec --rewrite-ssh -- make dependencies
"""

import argparse
import os
import shutil
import sys

from git_credential_bbjwt import git_config
from git_credential_bbjwt.configuration import entries, executable, known_urls, shell_word
from git_credential_bbjwt.errors import CredentialError, UsageError
from git_credential_bbjwt.installations import Catalogue
from git_credential_bbjwt.options import HelperOptions, checked_scope
from git_credential_bbjwt.sources import read_sources

# As shells have it: 126 for what cannot be run, 127 for what is not there.
_CANNOT_RUN, _NOT_FOUND = 126, 127


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("--scope", metavar="SCOPE", help="scope of the tokens")
    parser.add_argument("--rewrite-ssh", action="store_true", help="make ssh URLs of these hosts use https instead")
    parser.add_argument("words", nargs=argparse.REMAINDER, metavar="-- COMMAND [ARG ...]", help="what to run")


def run(options: HelperOptions, arguments: argparse.Namespace) -> int:
    """Become the command. Raises UsageError, and GitError for a git that is too old."""
    words = arguments.words[1:] if arguments.words[:1] == ["--"] else arguments.words
    if not words:
        raise UsageError("exec needs a command to run", "git-credential-bbjwt exec -- git clone URL")
    git_config.need(git_config.SETTINGS_BY_ENVIRONMENT, "exec", "use git-credential-bbjwt configure instead")
    if arguments.scope is not None:
        options.scope = checked_scope(arguments.scope)
    helper = shell_word(executable()) + "".join(f" {shell_word(word)}" for word in _helper_options(options))
    wanted = []
    for url in known_urls(Catalogue(read_sources(options.installation))):
        wanted += entries(url, helper, exclusive=True, rewrite_ssh=arguments.rewrite_ssh)
    environment = dict(os.environ)
    first = _config_count(environment)
    for number, (key, value) in enumerate(wanted, start=first):
        environment[f"GIT_CONFIG_KEY_{number}"] = key
        environment[f"GIT_CONFIG_VALUE_{number}"] = value
    environment["GIT_CONFIG_COUNT"] = str(first + len(wanted))
    for name in ("BBJWT_INSTALLATION", "BBJWT_JWT_FILE"):
        # Git runs the helper where the repository is.
        if environment.get(name) and not environment[name].lstrip().startswith("{"):
            environment[name] = os.path.abspath(environment[name])
    sys.stdout.flush()
    try:
        os.execvpe(words[0], words, environment)
    except OSError as problem:
        error = CredentialError(f"cannot run {words[0]}: {problem.strerror}", "check its name and PATH")
        error.exit_status = _CANNOT_RUN if shutil.which(words[0]) or "/" in words[0] else _NOT_FOUND
        raise error from problem


def _helper_options(options: HelperOptions) -> list[str]:
    """The options this very command was given, for the helper it switches on."""
    words = [f"--scope={options.scope}", f"--token-store={options.token_store}", f"--timeout={options.timeout:g}"]
    if options.app:
        words.append(f"--app={options.app}")
    if options.installation is not None:
        words.append(f"--installation={os.path.abspath(options.installation)}")
    if options.verbose:
        words.append("--verbose")
    return words


def _config_count(environment: dict[str, str]) -> int:
    """How many settings the environment holds already; ours come after them."""
    text = environment.get("GIT_CONFIG_COUNT", "") or "0"
    if not text.isascii() or not text.isdigit():
        raise UsageError("GIT_CONFIG_COUNT in the environment is no number", "unset it")
    return int(text)
