"""The commands for people: one module each, found by name, with argparse's help."""

import argparse
import os
import sys
from importlib import import_module
from types import ModuleType
from typing import Any, NoReturn

from git_credential_bbjwt import __version__
from git_credential_bbjwt.core.failures import CredentialError
from git_credential_bbjwt.core.options import DEFAULT_SCOPE, DEFAULT_TIMEOUT, OPERATIONS, TOKEN_STORES, HelperOptions
from git_credential_bbjwt.system.places import APP_NAME

#: Every command with its module, in the order ``--help`` lists them.
COMMANDS = {
    "register": "register",
    "list": "list_installations",
    "unregister": "unregister",
    "configure": "configure",
    "unconfigure": "unconfigure",
    "token": "token",
    "jwt": "jwt",
    "exec": "exec_command",
    "serve": "serve",
    "forget": "forget",
    "doctor": "doctor",
}

_DESCRIPTION = "Give git a fresh read-only token for exactly the Bitbucket repository it asks for."

_EPILOG = """\
As git's credential helper: git-credential-bbjwt [OPTIONS] get|store|erase|capability
Git reads the options from its configuration, for example credential.helper "bbjwt --scope repository:write".

Get started: git-credential-bbjwt register installed.json; git-credential-bbjwt configure
"""


def knows(word: str) -> bool:
    """Whether ``word`` is a command for people."""
    return word in COMMANDS or word == "help"


def parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line, options of the helper line included."""
    top = _Parser(
        prog=APP_NAME,
        description=_DESCRIPTION,
        epilog=_EPILOG,
    )
    top.add_argument("--version", action="version", version=f"{APP_NAME} {__version__}")
    helper = top.add_argument_group("options of the credential.helper line")
    helper.add_argument("--scope", metavar="SCOPE", help=f"scope of the token (default: {DEFAULT_SCOPE})")
    helper.add_argument("--app", metavar="KEY", help="app key, where several apps are installed on a workspace")
    helper.add_argument("--installation", metavar="FILE", help="use this payload file before any other installation")
    helper.add_argument("--installation-command", metavar="COMMAND", help="command that prints the payload to use")
    helper.add_argument("--broker", metavar="WHERE", help="ask this broker for tokens: unix:/PATH, or a command")
    helper.add_argument(
        "--host",
        metavar="HOST",
        help="host that a broker or installation command is asked about (default: bitbucket.org)",
    )
    helper.add_argument(
        "--allow",
        metavar="PATTERN",
        help="give tokens for WORKSPACE/SLUG alone, * in SLUG being any characters (repeatable)",
    )
    helper.add_argument(
        "--token-store",
        choices=TOKEN_STORES,
        help="cache tokens in the runtime folder, in the keyring, or not at all (default: runtime)",
    )
    helper.add_argument("--timeout", metavar="SECONDS", help=f"time for a whole call (default: {DEFAULT_TIMEOUT:g})")
    helper.add_argument("--verbose", action="store_true", help="log each decision and request to standard error")
    chosen = top.add_subparsers(dest="command", metavar="COMMAND", title="commands", required=True)
    for name in COMMANDS:
        module = _module(name)
        description = module.__doc__ or ""
        module.add_arguments(chosen.add_parser(name, help=description.splitlines()[0], description=description))
    return top


def _parser_of(name: str) -> argparse.ArgumentParser:
    """The parser of one command: the others' modules are not needed to run it, and would cost more than its own."""
    module = _module(name)
    alone = _Parser(prog=f"{APP_NAME} {name}", description=module.__doc__)
    alone.set_defaults(command=name)
    module.add_arguments(alone)
    return alone


def _module(name: str) -> ModuleType:
    return import_module(f"git_credential_bbjwt.commands.{COMMANDS[name]}")


def with_broker(options: HelperOptions, url: str) -> HelperOptions:
    """The options with the broker that git's configuration names for ``url``, where no other is named already.

    Raises GitError.
    """
    from git_credential_bbjwt.git import helper_lines

    broker, hosts = (None, ()) if options.broker is not None else helper_lines.broker_for(url)
    return options if broker is None else options.replaced(broker=broker, hosts=hosts)


def meant(word: str) -> str:
    """The hint for a ``word`` that is not a command: the one that was probably meant, else where all are listed."""
    from difflib import get_close_matches

    close = get_close_matches(word, [*COMMANDS, *OPERATIONS], n=1)
    return f"did you mean: git-credential-bbjwt {close[0]}" if close else "git-credential-bbjwt --help lists them"


def execute(options: HelperOptions, words: list[str]) -> int:
    """Run the command that ``words`` spell; return the exit status. Raises CredentialError."""
    if words == ["help"] or (len(words) == 2 and words[0] in OPERATIONS and words[1] in ("-h", "--help")):
        words = ["--help"]  # The operations have no help of their own: git calls them.
    if options.broker is None and os.environ.get("BBJWT_BROKER"):
        options = options.replaced(broker=os.environ["BBJWT_BROKER"])
    if sys.stdout is None and words[:1] == ["exec"]:
        return _run(options, words)  # The command may have no use for standard output.
    if sys.stdout is None:  # So says Python where descriptor 1 was closed.
        raise CredentialError("standard output is closed: the result cannot be written", "open it, or use a file")
    try:
        try:
            status = _run(options, words)
        finally:
            sys.stdout.flush()
    except BrokenPipeError:  # Whoever read our output has seen enough.
        return 1
    except OSError as problem:
        if problem.filename is not None:
            raise
        raise CredentialError(
            f"the result cannot be written: {problem.strerror}", "make room, or use a file"
        ) from problem
    return status


def _run(options: HelperOptions, words: list[str]) -> int:
    try:
        if words and words[0] in COMMANDS:
            arguments = _parser_of(words[0]).parse_args(words[1:])
        else:
            arguments = parser().parse_args(words)
    except SystemExit as ended:  # argparse has printed its help, or what is wrong.
        return ended.code if isinstance(ended.code, int) else 2
    status: int = _module(arguments.command).execute(options, arguments)
    return status


class _Parser(argparse.ArgumentParser):
    """argparse's, which repeats in an error what it was given: that may be a secret by mistake."""

    def __init__(self, **options: Any) -> None:
        """Take argparse's ``options``: texts are shown as they are laid out, and an option is written in full."""
        super().__init__(formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False, **options)

    def error(self, message: str) -> NoReturn:
        """End with a usage error. What argparse says up to the first colon is the argument's name."""
        known = ("the following arguments are required", "expected ", "not allowed with")
        what = message if any(words in message for words in known) else message.partition(":")[0]
        self.print_usage(sys.stderr)
        self.exit(2, f"{self.prog}: error: {what}\nhint: {self.prog} --help\n")
