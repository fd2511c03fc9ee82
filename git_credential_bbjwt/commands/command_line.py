"""The commands for people: one module for each, found by name, with argparse's help.

The helper's options apply before a command's name and after it. A command that has no use for an option refuses it, so
that nobody believes in a bound that is not in force.
"""

import argparse
import contextlib
import os
import sys
import textwrap
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from importlib import import_module
from types import ModuleType
from typing import Any, NamedTuple, NoReturn

from git_credential_bbjwt import __version__
from git_credential_bbjwt.core.failures import CredentialError, UsageError
from git_credential_bbjwt.core.options import OPERATIONS, OPTIONS, HelperOptions, Option
from git_credential_bbjwt.system.places import APP_NAME

_ALL = tuple(OPTIONS)
_SOURCES = ("--installation", "--installation-command", "--broker", "--id-token-command", "--id-token-file", "--host")


class Command(NamedTuple):
    """A command: its module in this folder, and the helper's options that it uses.

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
    "serve": Command(
        "serve",
        (
            "--scope",
            "--app",
            "--installation",
            "--installation-command",
            "--host",
            "--allow",
            "--token-store",
            "--timeout",
        ),
    ),
    "policy": Command("policy", is_any_order=True),
    "forget": Command("forget"),
    "doctor": Command("doctor", _ALL),
    "uninstall": Command("uninstall"),
}

_DESCRIPTION = "Give git a fresh read-only token for exactly the Bitbucket repository it asks for."

_USAGE = f"""{APP_NAME} COMMAND [ARGUMENTS]
       {APP_NAME} [OPTIONS] get|store|erase|capability"""

_EPILOG = f"""\
Git runs the second form: credential.helper in its configuration names the command and its options.

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
    top = _Parser(prog=APP_NAME, usage=_USAGE, description=_DESCRIPTION, epilog=_EPILOG, add_help=False)
    chosen = top.add_subparsers(dest="command", metavar="COMMAND", title="commands", prog=APP_NAME, required=True)
    for name in COMMANDS:
        module = _module(name)
        description = module.__doc__ or ""
        summary = description.splitlines()[0].removesuffix(".")
        _declare(name, module, chosen.add_parser(name, help=summary, description=description))
    helper = top.add_argument_group("options of the helper, in credential.helper or before a command")
    for option in OPTIONS.values():
        _add(helper, option)
    others = top.add_argument_group("other options")
    others.add_argument("-h", "--help", action="help", help="show this help; each command has its own")
    others.add_argument("--version", action="version", version=f"{APP_NAME} {__version__}", help="show the version")
    return top


def _parser_of(name: str) -> argparse.ArgumentParser:
    """Return the parser of one command: to import the others' modules would cost more than most commands."""
    module = _module(name)
    alone = _Parser(prog=f"{APP_NAME} {name}", description=module.__doc__)
    _declare(name, module, alone)
    return alone


def _declare(name: str, module: ModuleType, command: argparse.ArgumentParser) -> None:
    module.add_arguments(command)
    command.usage = command.format_usage().removeprefix("usage: ").rstrip()  # Without the helper's options.
    helper = command.add_argument_group("options of the helper, also before the command's name")
    for option in OPTIONS.values():
        if option.name in (*COMMANDS[name].options, "--verbose"):
            with contextlib.suppress(argparse.ArgumentError):  # The command has an option of its own by this name.
                _add(helper, option)


def _add(group: argparse._ArgumentGroup, option: Option) -> None:
    default = f" (default: {option.default})" if option.default else ""
    group.add_argument(
        option.name,
        action=_Given,
        default=argparse.SUPPRESS,
        nargs=None if option.metavar else 0,
        metavar=option.metavar or None,
        choices=option.metavar.split("|") if "|" in option.metavar else None,
        help=option.meaning + default,
    )


class _Given(argparse.Action):
    """An option of the helper that is given after the command's name. All of them are collected in ``helper``."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,  # noqa: ARG002  # argparse's signature
    ) -> None:
        del parser
        earlier: list[tuple[str, str]] = getattr(namespace, "helper", [])
        namespace.helper = [*earlier, (self.option_strings[0], values if isinstance(values, str) else "")]


def _module(name: str) -> ModuleType:
    return import_module(f"git_credential_bbjwt.commands.{COMMANDS[name].module}")


def with_broker(options: HelperOptions, url: str) -> HelperOptions:
    """Return the options with the broker that git's configuration names for ``url``, unless one is named already.

    Raises GitError, and UsageError if another option excludes a broker.
    """
    from git_credential_bbjwt.git import helper_lines

    named = None if options.broker is not None else helper_lines.broker_for(url)
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
    if len(words) == 1 and not words[0].startswith("-") and words[0] not in (*COMMANDS, "help") and _gets_a_request():
        return 0  # gitcredentials(7): a helper ignores operations it does not know, because git may add some.
    if sys.stdout is None and words[:1] == ["exec"]:
        return _run(options, words)  # The command may have no use for standard output.
    if sys.stdout is None:  # Python's sign that descriptor 1 was closed.
        raise CredentialError("standard output is closed: the result cannot be written", "open it, or use a file")
    try:
        try:
            status = _run(options, words)
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
    return status


def _run(options: HelperOptions, words: list[str]) -> int:
    if words[:1] == ["help"] and words[1:2] and words[1] in COMMANDS:
        words = [words[1], "--help"]
    name = words[0] if words else ""
    if name in OPERATIONS and words[1:] not in (["-h"], ["--help"]):
        raise UsageError(f"{name} takes no arguments", f"write options before it: {APP_NAME} --verbose {name}")
    if name in ("-h", "--help", "help", *OPERATIONS):
        parser().print_help()
        return 0
    if name == "--version":
        print(f"{APP_NAME} {__version__}")
        return 0
    if name not in COMMANDS:
        raise UsageError(*_unknown(name))
    _check_used(name, options.given)
    try:
        command = _parser_of(name)
        parse = command.parse_intermixed_args if COMMANDS[name].is_any_order else command.parse_args
        arguments = parse(words[1:])
    except SystemExit as ended:  # argparse has printed its help, or the error.
        return ended.code if isinstance(ended.code, int) else 2
    for option, value in getattr(arguments, "helper", ()):
        options = options.with_option(option, value)
    if options.verbose:
        from git_credential_bbjwt.core.output import be_verbose

        be_verbose()
    if options.broker is None and "--broker" in COMMANDS[name].options and os.environ.get("BBJWT_BROKER"):
        from git_credential_bbjwt.core.where import Where

        options = options.replaced(broker=Where.parse(os.environ["BBJWT_BROKER"], "BBJWT_BROKER").text)
    options.check()
    status: int = _module(name).execute(options, arguments)
    return status


def _check_used(name: str, given: Iterable[str]) -> None:
    unused = [option for option in dict.fromkeys(given) if option not in (*COMMANDS[name].options, "--verbose")]
    if unused:
        raise UsageError(f"{name} has no use for {', '.join(unused)}", f"leave out {', '.join(unused)}")


def _unknown(word: str) -> tuple[str, str]:
    """Return error and hint for an unknown command. The word is not repeated, because it may be a secret."""
    if not word:
        return "no command is given", f"the commands are: {', '.join(COMMANDS)}"
    if word.startswith("-"):
        return "there is no such option", _meant(word.partition("=")[0], [*OPTIONS, "--help", "--version"])
    return "there is no such command", _meant(word, [*COMMANDS, *OPERATIONS])


def _meant(word: str, known: list[str]) -> str:
    close = get_close_matches(word, known, n=1)
    if known[0].startswith("-"):
        return f"did you mean {close[0]}?" if close else f"{APP_NAME} --help lists the options"
    commands = f"the commands are: {', '.join(COMMANDS)}"
    return f"did you mean {close[0]}? {commands[0].upper()}{commands[1:]}" if close else commands


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


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """Help that fits the terminal: paragraphs are filled, indented lines (examples) stay as they are."""

    def __init__(self, prog: str, **options: Any) -> None:
        super().__init__(prog, **options)
        self._width = min(self._width, _WIDEST)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        paragraphs = [self._paragraph(part, width) for part in textwrap.dedent(text).strip().split("\n\n")]
        return textwrap.indent("\n\n".join(paragraphs), indent)

    @staticmethod
    def _paragraph(text: str, width: int) -> str:
        lines: list[str] = []
        for line in text.splitlines():
            if lines and not line.startswith((" ", "- ")) and not lines[-1].startswith(" ") and lines[-1][-1:] != ":":
                lines[-1] += " " + line
            else:
                lines.append(line)
        return "\n".join(line if line.startswith(" ") else textwrap.fill(line, width) for line in lines)


class _Parser(argparse.ArgumentParser):
    """argparse's parser with errors that repeat no value, because a value may be a secret by mistake."""

    def __init__(self, **options: Any) -> None:
        """Take argparse's ``options``. An option must be written in full."""
        super().__init__(formatter_class=_Formatter, allow_abbrev=False, **options)

    def error(self, message: str) -> NoReturn:
        """End with a usage error that names arguments and choices, both of which the program knows."""
        self.print_usage(sys.stderr)
        what, hint = self._what_is_wrong(message)
        from git_credential_bbjwt.core.output import error

        error(what, f"{hint}{self.prog} --help")
        self.exit(2)

    def _what_is_wrong(self, message: str) -> tuple[str, str]:
        argument, _, reason = message.partition(": ")
        if message.startswith("unrecognized arguments"):
            known = [name for action in self._actions for name in action.option_strings]
            close = [
                found
                for word in reason.split()
                if word.startswith("--")
                for found in get_close_matches(word.partition("=")[0], known, n=1)
            ]
            return "there is an argument too many or an unknown option", f"did you mean {close[0]}? " if close else ""
        known_words = ("expected ", "not allowed with ")
        if not argument.startswith("argument ") or reason.startswith(known_words):
            # argparse's own words and the names of arguments, or no message that repeats a value.
            return message if reason or "required" in message else "the arguments are wrong", ""
        choices = reason.rpartition("(choose from ")[2].replace("'", "").removesuffix(")")
        return f"{argument}: " + (f"choose from {choices}" if "invalid choice" in reason else "invalid value"), ""
