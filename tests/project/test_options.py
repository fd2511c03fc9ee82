"""One table of options: README, the man page and each command's help have every option."""

from __future__ import annotations

import argparse
import re
from importlib import import_module

import pytest

from git_credential_bbjwt.commands.command_line import COMMANDS, parser
from git_credential_bbjwt.core.option_table import OPTIONS, helper_words, with_option
from git_credential_bbjwt.core.options import HelperOptions
from tests import options


def test_tables_are_written_by_tests_options() -> None:
    for path, content in options.pages().items():
        assert path.read_text(encoding="utf-8") == content, f"run: python -m tests.options ({path.name} is behind)"


def own_options(command: str) -> list[str]:
    """Return the options of a command that are not the helper's, and the choices of their values."""
    (commands,) = (action for action in parser()._actions if isinstance(action, argparse._SubParsersAction))
    own = [action for action in commands.choices[command]._actions if action.option_strings[-1:] != ["--help"]]
    own = [action for action in own if not OPTIONS.keys() & set(action.option_strings)]
    return [word for action in own for word in [*action.option_strings[-1:], *(action.choices or ())]]


@pytest.mark.parametrize("command", COMMANDS)
def test_readme_names_each_command_and_the_man_page_each_of_its_options(command: str) -> None:
    row = re.search(rf"^\|.*`{command}\b.*\|", options.README.read_text(encoding="utf-8"), re.MULTILINE)
    page = options.MAN_PAGE.read_text(encoding="utf-8").replace("\\-", "-").partition(".SH COMMANDS\n")[2]
    entry = re.search(rf"^\\fB{command}\\fR.*", page, re.MULTILINE)

    assert row is not None, "README 'Commands' has no row for it"
    assert entry is not None, "the man page's COMMANDS has no entry for it"
    for option in own_options(command):
        assert option in entry[0], f"its entry in the man page's COMMANDS lacks {option}"


@pytest.mark.parametrize("command", COMMANDS)
def test_module_of_a_command_has_the_functions_that_the_command_line_calls(command: str) -> None:
    module = import_module(f"git_credential_bbjwt.commands.{COMMANDS[command].module}")

    assert module.__doc__
    assert callable(module.add_arguments)
    assert callable(module.execute)


def test_every_option_has_a_value_of_its_own_in_the_helper_line() -> None:
    examples = {"--timeout": "7", "--allow": "acme/widgets", "--scope": "account"}
    # If an option has choices, its last choice.
    examples |= {name: one.metavar.rpartition("|")[2] for name, one in OPTIONS.items() if "|" in one.metavar}
    given = HelperOptions()
    for name, option in OPTIONS.items():
        given = (
            with_option(given, name, examples.get(name, "/x") if option.metavar else "") if name != "--host" else given
        )
    given = with_option(with_option(given, "--host", "a.example"), "--host", "b.example")
    words = helper_words(given)

    assert {word.partition("=")[0] for word in words} == set(OPTIONS)
    assert words.count("--host=a.example") == words.count("--host=b.example") == 1
    assert helper_words(HelperOptions()) == []
