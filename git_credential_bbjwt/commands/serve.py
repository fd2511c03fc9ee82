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

from git_credential_bbjwt.core.failures import InstallationError, UsageError
from git_credential_bbjwt.core.options import HelperOptions
from git_credential_bbjwt.core.patterns import Pattern

TYPE_CHECKING = False
if TYPE_CHECKING:
    from git_credential_bbjwt.serving.answer import Rules

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
        help="hand out tokens that open every repository of the workspace, too",
    )


def execute(options: HelperOptions, arguments: argparse.Namespace) -> int:
    """Answer. Raises UsageError, before anything is read, for a command line that is wrong.

    A file that cannot be used is reported in the answer instead, because a client is waiting.
    """
    from git_credential_bbjwt.serving.answer import Rules
    from git_credential_bbjwt.serving.audit import audit_to
    from git_credential_bbjwt.serving.isolation import check_own_file
    from git_credential_bbjwt.serving.serve import serve

    patterns = options.allow + tuple(Pattern.parse(text) for text in arguments.allow)
    if not patterns and not arguments.allow_file:
        raise UsageError("serve needs --allow PATTERN or --allow-file FILE")
    for option, path in [("--allow-file", one) for one in arguments.allow_file] + [
        ("--installation", options.installation or "/")
    ]:
        if not os.path.isabs(path):
            raise UsageError(f"{option} needs an absolute path")
    audit = audit_to(arguments.audit)
    # A request by UUIDs is looked up before it is compared with the patterns, so they are not the helper's own --allow.
    options = options.replaced(allow=())

    def rules() -> "Rules":
        allowed = patterns
        for path in arguments.allow_file:
            check_own_file(path, "--allow-file")
            allowed += patterns_of(path)
        if options.installation is not None:
            check_own_file(options.installation, "--installation")
        return Rules(options, allowed, arguments.whole_workspace)

    return serve(options, rules, audit, arguments.asker)


def patterns_of(path: str) -> tuple[Pattern, ...]:
    """Return the patterns in a file, one per line. Raises InstallationError if it cannot be used."""
    try:
        with open(path, encoding="utf-8-sig") as file:
            lines = [line.strip() for line in file.read(_LONGEST_FILE).splitlines()]
    except (OSError, ValueError) as problem:
        why = getattr(problem, "strerror", None) or "it is not UTF-8 text"
        raise InstallationError(f"--allow-file cannot be read: {path}: {why}", "correct the file") from problem
    wanted = [line for line in lines if line and not line.startswith("#")]
    if not wanted:
        raise InstallationError(f"--allow-file is empty: {path}", "list WORKSPACE/SLUG, one per line")
    try:
        return tuple(Pattern.parse(line) for line in wanted)
    except UsageError as problem:
        raise InstallationError(f"--allow-file has a line that is no pattern: {path}", problem.what) from problem
