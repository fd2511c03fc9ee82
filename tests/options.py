"""The option tables of README and the man page, made from the helper's own table.

``python -m tests.options`` writes them; a test compares.
"""

from __future__ import annotations

import re
from pathlib import Path

from git_credential_bbjwt.core.option_table import OPTIONS, Option

PROJECT = Path(__file__).parent.parent
README = PROJECT / "README.md"
MAN_PAGE = PROJECT / "git_credential_bbjwt/installed/git-credential-bbjwt.1"

_README_MARKS = ("<!-- options: written by python -m tests.options -->", "<!-- end of options -->")
_MAN_MARKS = ('.\\" options: written by python -m tests.options', '.\\" end of options')


def readme_table() -> list[str]:
    """Return the lines of README's table."""
    rows = ["| option | default | what it does |", "|---|---|---|"]
    for option in OPTIONS.values():
        name = f"{option.name} {option.metavar}".rstrip().replace("|", "\\|")
        default = f"`{option.default}`" if option.default else ""
        rows.append(f"| `{name}` | {default} | {option.meaning} |".replace("|  |", "| |"))
    return rows


def man_page_list() -> list[str]:
    """Return the lines of the man page's list."""
    return [line for option in OPTIONS.values() for line in _man_page_entry(option)]


def _man_page_entry(option: Option) -> list[str]:
    name = option.name.replace("-", "\\-")
    metavar = re.sub(r"\w+", lambda word: f"\\f{'I' if word[0].isupper() else 'B'}{word[0]}\\fR", option.metavar)
    text = option.meaning[0].upper() + option.meaning[1:] + "."
    default = [f"Default: {option.default}."] if option.default else []
    return [".TP", f"\\fB{name}\\fR {metavar}".rstrip(), text.replace("-", "\\-"), *default]


def written(text: str, marks: tuple[str, str], lines: list[str]) -> str:
    """Return ``text`` with ``lines`` between the two lines ``marks``."""
    before, first, rest = text.partition(marks[0] + "\n")
    _, last, after = rest.partition(marks[1] + "\n")
    assert first, marks[0]
    assert last, marks[1]
    return before + first + "".join(line + "\n" for line in lines) + last + after


def pages() -> dict[Path, str]:
    """Return the content of each page with its table as it has to be."""
    return {
        README: written(README.read_text(encoding="utf-8"), _README_MARKS, readme_table()),
        MAN_PAGE: written(MAN_PAGE.read_text(encoding="utf-8"), _MAN_MARKS, man_page_list()),
    }


if __name__ == "__main__":
    for path, content in pages().items():
        path.write_text(content, encoding="utf-8")
