"""Answer one request for a token, for those who must not hold the secret; then end.

For a forced command of sshd, a rule of sudo, or a systemd socket unit with Accept=yes. The asker chooses the
repository, among those that --allow names, and nothing else; each request leaves a line in the audit.

Examples:
  git-credential-bbjwt serve --allow 'acme/lib-*' --audit syslog
  git-credential-bbjwt serve --allow-file /etc/git-credential-bbjwt/builds \\
      --audit /var/log/bbjwt.log
"""

import argparse

from git_credential_bbjwt.core.failures import UsageError
from git_credential_bbjwt.core.options import HelperOptions
from git_credential_bbjwt.core.patterns import Pattern

# A list of a hundred thousand repositories is a few megabytes.
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
    parser.add_argument("--asker", default="", metavar="LABEL", help="name of the asker, for the audit")


def execute(options: HelperOptions, arguments: argparse.Namespace) -> int:
    """Answer. Raises UsageError, before anything is read, for an allow-list or audit that is missing or broken."""
    from git_credential_bbjwt.serving.audit import audit_to
    from git_credential_bbjwt.serving.isolation import check_own_file
    from git_credential_bbjwt.serving.serve import serve

    patterns = options.allow + tuple(Pattern.parse(text) for text in arguments.allow)
    for path in arguments.allow_file:
        check_own_file(path, "--allow-file")
        patterns += _patterns_of(path)
    if not patterns:
        raise UsageError("serve needs --allow PATTERN or --allow-file FILE with one in it")
    if options.installation is not None:
        check_own_file(options.installation, "--installation")
    audit = audit_to(arguments.audit)
    options = options.replaced(allow=())  # What is asked for by UUIDs has to be looked up before it is held to them.
    return serve(options, patterns, audit, arguments.asker)


def _patterns_of(path: str) -> tuple[Pattern, ...]:
    try:
        with open(path, encoding="utf-8") as file:
            lines = [line.strip() for line in file.read(_LONGEST_FILE).splitlines()]
    except (OSError, ValueError) as problem:
        raise UsageError(
            f"--allow-file cannot be read: {getattr(problem, 'strerror', None) or 'not text'}"
        ) from problem
    return tuple(Pattern.parse(line) for line in lines if line and not line.startswith("#"))
