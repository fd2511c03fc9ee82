"""Answer one request of a client that must not hold the secret, then exit.

Started by a systemd socket unit with Accept=yes, or by sshd as a forced
command. The client chooses the repository, among those that --allow names, and
nothing else. Each request leaves a line in the audit.

Examples:
  git-credential-bbjwt serve --allow 'acme/lib-*' --audit syslog
  git-credential-bbjwt serve --allow-file /etc/git-credential-bbjwt/builds \\
      --audit /var/log/bbjwt.log
"""

import argparse
import os

from git_credential_bbjwt.core.failures import CredentialError, UsageError
from git_credential_bbjwt.core.options import HelperOptions
from git_credential_bbjwt.core.patterns import Pattern

TYPE_CHECKING = False
if TYPE_CHECKING:
    from git_credential_bbjwt.serving.answering import OperatorSettings

# A list of a hundred thousand repositories is a few megabytes. Bytes.
_LONGEST_FILE = 64 * 1024 * 1024


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "--allow", action="append", default=[], metavar="PATTERN", help="WORKSPACE/SLUG, * in SLUG for any characters"
    )
    parser.add_argument(
        "--allow-file", action="append", default=[], metavar="FILE", help="file with a PATTERN on each line"
    )
    parser.add_argument("--audit", required=True, metavar="WHERE", help="syslog, none, or the absolute path of a file")
    parser.add_argument("--asker", default="", metavar="LABEL", help="name of the client, for the audit")
    parser.add_argument(
        "--whole-workspace",
        action="store_true",
        help="also return tokens that open every repository of the workspace",
    )


def execute(options: HelperOptions, arguments: argparse.Namespace) -> int:
    """Answer. Raises UsageError, before anything is read, for a command line that is wrong.

    A file that cannot be used is reported in the answer instead, because a client is waiting.
    """
    from git_credential_bbjwt.serving.answering import OperatorSettings
    from git_credential_bbjwt.serving.audit import audit_to
    from git_credential_bbjwt.serving.operators_files import check_own_file, operators_folder
    from git_credential_bbjwt.serving.serve import serve

    patterns = options.allow + tuple(Pattern.parse(text) for text in arguments.allow)
    if not patterns and not arguments.allow_file:
        raise UsageError(
            "serve needs --allow PATTERN or --allow-file FILE", "write for example serve --allow 'acme/lib-*'"
        )
    for path in arguments.allow_file:
        _check_absolute("--allow-file", path)
    if options.installation is not None:
        _check_absolute("--installation", options.installation)

    def read_settings(options: HelperOptions) -> "OperatorSettings":
        allowed = patterns
        for path in arguments.allow_file:
            allowed += _patterns_in(path)
        if options.installation is not None:
            check_own_file(options.installation, "--installation")
        # A request by UUIDs is looked up before it is compared with the patterns, so they are not the helper's --allow.
        return OperatorSettings(options.replaced(allow=()), allowed, arguments.whole_workspace, operators_folder())

    return serve(options, read_settings, audit_to(arguments.audit), arguments.asker)


def _check_absolute(option: str, path: str) -> None:
    if not os.path.isabs(path):
        raise UsageError(
            f"{option} needs an absolute path", f"write for example {option} /etc/git-credential-bbjwt/FILE"
        )


def _patterns_in(path: str) -> tuple[Pattern, ...]:
    """Return the patterns in a file, one per line. Raises CredentialError if it cannot be used."""
    from git_credential_bbjwt.serving.operators_files import read_own_file

    try:
        lines = map(str.strip, read_own_file(path, "--allow-file", _LONGEST_FILE).decode("utf-8-sig").splitlines())
    except UnicodeDecodeError as problem:
        raise CredentialError(f"--allow-file is not UTF-8 text: {path}") from problem
    patterns = [line for line in lines if line and not line.startswith("#")]
    if not patterns:
        raise CredentialError(f"--allow-file is empty: {path}", "list WORKSPACE/SLUG, one per line")
    try:
        return tuple(map(Pattern.parse, patterns))
    except UsageError as problem:
        raise CredentialError(f"--allow-file has a line that is not a pattern: {path}", problem.what) from problem
