"""The commands for people: one module for each, found by name, with argparse's help.

The helper's options apply before a command's name and after it. A command that has no use for an option refuses it, so
that nobody believes in a bound that is not in force.
"""

import argparse
import contextlib
import os
import shutil
import sys
from collections.abc import Iterable
from difflib import get_close_matches
from importlib import import_module
from types import ModuleType
from typing import Any, NamedTuple, NoReturn

from git_credential_bbjwt import __version__
from git_credential_bbjwt.core.failures import CredentialError, UsageError
from git_credential_bbjwt.core.files import APP_NAME
from git_credential_bbjwt.core.option_table import OPTIONS, Option, with_option
from git_credential_bbjwt.core.options import OPERATIONS, HelperOptions
from git_credential_bbjwt.core.repository import is_name

_ALL = tuple(OPTIONS)
_SOURCES = ("--installation", "--installation-command", "--broker", "--id-token-command", "--id-token-file", "--host")
_OF_SERVE = tuple(name for name in OPTIONS if name not in ("--broker", "--id-token-command", "--id-token-file"))


class Command(NamedTuple):
    """A command: its module in this folder, and the helper's options that it uses beside ``--verbose``.

    ``is_any_order`` takes its options between its arguments, too.
    """

    module: str
    options: tuple[str, ...] = ()
    is_any_order: bool = False


#: Every command, in the order of ``--help``.
COMMANDS = {
    "register": Command("register", ("--timeout",)),
    "list": Command("list_installations", _SOURCES),
    "unregister": Command("unregister", ("--app",)),
    "configure": Command("configure", _ALL),
    "unconfigure": Command("unconfigure"),
    "token": Command("token", _ALL),
    "jwt": Command("jwt", ("--app", "--installation")),
    "exec": Command("exec_command", _ALL),
    "serve": Command("serve", _OF_SERVE),
    "policy": Command("policy", is_any_order=True),
    "forget": Command("forget"),
    "doctor": Command("doctor", _ALL),
    "uninstall": Command("uninstall"),
}

_USAGE = f"""{APP_NAME} COMMAND [ARGUMENTS]
       {APP_NAME} [OPTIONS] get|store|erase|capability"""

_EPILOG = f"""\
Git runs the second form: credential.helper in its configuration names the
command and its options.

Get started:
  {APP_NAME} register installed.json
  {APP_NAME} configure
"""

# Git writes its request at once. If nothing comes for so many seconds, nobody sends one.
_SECONDS_FOR_A_REQUEST = 5

# Columns. Lines of prose that are longer are hard to read.
_WIDEST = 100


def parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line: for ``--help`` and the shells' completions."""
    what = "Give git a fresh read-only token for just the Bitbucket repository it asks for."
    top = _Parser(prog=APP_NAME, usage=_USAGE, description=what, epilog=_EPILOG, add_help=False)
    chosen = top.add_subparsers(dest="command", metavar="COMMAND", title="commands", prog=APP_NAME, required=True)
    for name in COMMANDS:
        description = _module(name).__doc__ or ""
        summary = description.splitlines()[0].removesuffix(".")
        _declare(name, chosen.add_parser(name, help=summary, description=description))
    helper = top.add_argument_group("options of the helper, in credential.helper or before a command")
    for option in OPTIONS.values():
        _add(helper, option)
    others = top.add_argument_group("other options")
    others.add_argument("-h", "--help", action="help", help="show this help; each command has its own")
    others.add_argument("--version", action="version", version=f"{APP_NAME} {__version__}", help="show the version")
    return top


def _parser_of(name: str) -> argparse.ArgumentParser:
    """Return the parser of one command: to import the others' modules would cost more than most commands."""
    return _declare(name, _Parser(prog=f"{APP_NAME} {name}", description=_module(name).__doc__))


def _declare(name: str, command: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Declare the arguments of a command, which may have options of its own by the names of the helper's."""
    _module(name).add_arguments(command)
    command.usage = command.format_usage().removeprefix("usage: ").rstrip()  # Without the helper's options.
    own = {word for action in command._actions for word in action.option_strings}
    helper = command.add_argument_group("options of the helper, also before the command's name")
    for option in OPTIONS.values():
        if option.name in (*COMMANDS[name].options, "--verbose") and option.name not in own:
            _add(helper, option)
    return command


def _add(group: argparse._ArgumentGroup, option: Option) -> None:
    """Declare an option of the helper; its values are collected under its name, for `with_option`."""
    meaning = option.meaning + (f" (default: {option.default})" if option.default else "")
    common: dict[str, Any] = {"dest": option.name, "default": argparse.SUPPRESS, "help": meaning}
    if option.metavar:
        choices = option.metavar.split("|") if "|" in option.metavar else None
        group.add_argument(option.name, action="append", metavar=option.metavar, choices=choices, **common)
    else:
        group.add_argument(option.name, action="append_const", const="", **common)


def _module(name: str) -> ModuleType:
    return import_module(f"git_credential_bbjwt.commands.{COMMANDS[name].module}")


def slug(text: str) -> str:
    """Return a workspace's slug in lower case, for argparse, which turns the error into one of the command."""
    if not is_name(text.lower()):
        raise argparse.ArgumentTypeError("needs the slug in the workspace's URLs")
    return text.lower()


def with_broker(options: HelperOptions, url: str) -> HelperOptions:
    """Return the options with the broker that git's configuration names for ``url``, unless one is named already.

    Raises GitError, and UsageError if another option excludes a broker.
    """
    from git_credential_bbjwt.git import helper_lines
    from git_credential_bbjwt.system.budget import Budget, say_that_time_is_up

    named = None
    if options.broker is None:
        budget = Budget(options.timeout)
        budget.doing = "waiting for git config"
        budget.watch(say_that_time_is_up)  # A configuration that is a FIFO, or on a server that is gone, has no end.
        try:
            named = next((line for line in helper_lines.options_for(url) if line.broker is not None), None)
        finally:
            budget.finish()
    if named is not None:
        options = options.replaced(
            broker=named.broker,
            hosts=named.hosts,
            id_token_command=options.id_token_command or named.id_token_command,
            id_token_file=options.id_token_file or named.id_token_file,
        )
    options.check()
    options.check_id_token()
    return options


def execute(options: HelperOptions, words: list[str]) -> int:
    """Run the command that ``words`` spell; return the exit status. Raises CredentialError."""
    name, *rest = words or [""]
    if not rest and name and not name.startswith("-") and name not in (*COMMANDS, "help") and _gets_a_request():
        return 0  # gitcredentials(7): a helper ignores operations it does not know, because git may add some.
    if sys.stdout is None and name == "exec":  # Python's sign that descriptor 1 was closed.
        return _run(options, name, rest)  # The command may have no use for it.
    if sys.stdout is None:
        raise CredentialError("standard output is closed: the result cannot be written", "open it, or use a file")
    try:
        try:
            return _run(options, name, rest)
        finally:
            sys.stdout.flush()
    except BrokenPipeError:  # The reader has gone.
        return 1
    except OSError as problem:
        if problem.filename is not None:
            raise
        raise CredentialError(
            f"the result cannot be written: {problem.strerror}", "make room, or use a file"
        ) from problem


def _run(options: HelperOptions, name: str, words: list[str]) -> int:
    if name == "help" and words and words[0] in COMMANDS:
        name, words = words[0], ["--help"]
    if name in OPERATIONS and words not in (["-h"], ["--help"]):
        raise UsageError(f"{name} takes no arguments", f"write options before it: {APP_NAME} --verbose {name}")
    if name in ("-h", "--help", "help", *OPERATIONS):
        parser().print_help()
        return 0
    if name == "--version":
        print(f"{APP_NAME} {__version__}")
        return 0
    if name not in COMMANDS:
        raise _unknown(name)
    command = COMMANDS[name]
    unused = [option for option in dict.fromkeys(options.given) if option not in (*command.options, "--verbose")]
    if unused:
        raise UsageError(f"{name} has no use for {', '.join(unused)}", f"leave out {', '.join(unused)}")
    try:
        its_parser = _parser_of(name)
        parse = its_parser.parse_intermixed_args if command.is_any_order else its_parser.parse_args
        arguments = parse(words)
    except SystemExit as ended:  # argparse has printed its help, or the error.
        return ended.code if isinstance(ended.code, int) else 2
    for option in OPTIONS:
        for value in getattr(arguments, option, ()):
            options = with_option(options, option, value)
    if options.verbose:
        from git_credential_bbjwt.core.output import be_verbose

        be_verbose()
    if options.broker is None and "--broker" in command.options and os.environ.get("BBJWT_BROKER"):
        from git_credential_bbjwt.core.where import Where

        options = options.replaced(broker=Where.parse(os.environ["BBJWT_BROKER"], "BBJWT_BROKER").text)
    options.check()
    status: int = _module(name).execute(options, arguments)
    return status


def _unknown(word: str) -> UsageError:
    """Return the error for an unknown command. The word is not repeated, because it may be a secret."""
    if word.startswith("-"):
        meant = _did_you_mean([word], [*OPTIONS, "--help", "--version"])
        return UsageError("there is no such option", f"{meant}{APP_NAME} --help lists the options")
    what = "there is no such command" if word else "no command is given"
    return UsageError(what, f"{_did_you_mean([word], [*COMMANDS, *OPERATIONS])}choose from {', '.join(COMMANDS)}")


def _did_you_mean(words: Iterable[str], known: list[str]) -> str:
    close = [found for word in words for found in get_close_matches(word.partition("=")[0], known, n=1)]
    return f"did you mean {close[0]}? " if close else ""


def _gets_a_request() -> bool:
    """Return whether a line ``key=value`` comes on standard input, and soon."""
    if os.isatty(0):
        return False
    import threading

    found: list[bytes] = []

    def read() -> None:
        with contextlib.suppress(OSError):  # Nobody can send anything on this descriptor.
            found.append(os.read(0, 65_536))

    # Not select, which knows no pipes on Windows.
    reading = threading.Thread(target=read, daemon=True)
    reading.start()
    reading.join(_SECONDS_FOR_A_REQUEST)
    return any(b"=" in line[1:] for data in found for line in data.split(b"\n"))


def _formatter(prog: str) -> argparse.HelpFormatter:
    """Return argparse's formatter that shows the docstrings of commands as they are."""
    width = min(shutil.get_terminal_size().columns - 2, _WIDEST)
    return argparse.RawDescriptionHelpFormatter(prog, width=width)


class _Parser(argparse.ArgumentParser):
    """argparse's parser with errors that repeat no value, because a value may be a secret by mistake."""

    def __init__(self, **options: Any) -> None:
        """Take argparse's ``options``. An option must be written in full."""
        super().__init__(formatter_class=_formatter, allow_abbrev=False, **options)
        self.color = False  # Of Python 3.14; `_declare` needs a usage without escape sequences.

    def error(self, message: str) -> NoReturn:
        """End with a usage error that names arguments and choices, both of which the program knows."""
        from git_credential_bbjwt.core.output import error

        argument, _, reason = message.partition(": ")
        hint = f"{self.prog} --help"
        if argument == "unrecognized arguments":
            message = "there is an argument too many or an unknown option"
            names = [name for action in self._actions for name in action.option_strings]
            hint = _did_you_mean([word for word in reason.split() if word.startswith("--")], names) + hint
        elif reason.startswith("invalid choice: "):
            choices = reason.rpartition("(choose from ")[2].replace("'", "").removesuffix(")")
            message = f"{argument}: choose from {choices}"
        elif not argument.endswith("required") and not reason.startswith(("expected ", "not allowed with ", "needs ")):
            message = f"{argument}: invalid value"
        self.print_usage(sys.stderr)
        error(message, hint)
        self.exit(2)
