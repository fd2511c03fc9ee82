"""The package's structure as in CONTRIBUTING.md: wings in an order, and imports between them in one direction."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from tests.conftest import PROJECT

PACKAGE = PROJECT / "git_credential_bbjwt"
DRAWN = (PROJECT / "CONTRIBUTING.md").read_text(encoding="utf-8").partition("## How it is built")[2]

#: The wings, from the top one down.
WINGS = re.findall(r"^\| `(\w+)/` \|", DRAWN, re.MULTILINE)


def imported(path: Path) -> Iterator[str]:
    """Yield the modules of the package that a module imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith(PACKAGE.name):
            inner = node.module.removeprefix(PACKAGE.name).lstrip(".")
            yield from [inner] if inner else [alias.name for alias in node.names]


def wing_of(module: str) -> str:
    """Return the wing of a module; empty for a module at the top."""
    first = module.partition(".")[0]
    return first if (PACKAGE / first).is_dir() else ""


def test_table_has_every_wing_and_module() -> None:
    folders = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}

    assert set(WINGS) == folders
    for path in PACKAGE.rglob("*.py"):
        if not path.stem.startswith("__") and path.parent.name not in ("commands", "installed", PACKAGE.name):
            assert f"`{path.stem}`" in DRAWN, path


def test_imports_between_wings_point_down() -> None:
    upwards = [
        (str(path.relative_to(PACKAGE)), module)
        for wing in WINGS
        for path in (PACKAGE / wing).rglob("*.py")
        for module in imported(path)
        if wing_of(module) in WINGS[: WINGS.index(wing)]
    ]

    assert upwards == []


def test_no_file_is_longer_than_350_lines() -> None:
    lengths = {str(path.relative_to(PACKAGE)): path.read_text().count("\n") for path in PACKAGE.rglob("*.py")}

    assert {path: lines for path, lines in lengths.items() if lines > 350} == {}


def modules() -> dict[str, set[str]]:
    """Return each module of the package, with the modules of the package that it imports."""
    paths = [path for path in PACKAGE.rglob("*.py") if "installed" not in path.parts]
    names = {".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__") for path in paths}
    found: dict[str, set[str]] = {}
    for path in paths:
        name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")
        found[name] = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith(PACKAGE.name):
                inner = node.module.removeprefix(PACKAGE.name).lstrip(".")
                candidates = {f"{inner}.{alias.name}".lstrip(".") for alias in node.names} | {inner}
                found[name] |= (candidates & names) - {name, ""}
    return found


def test_modules_do_not_import_each_other_in_a_circle() -> None:
    left = modules()
    while True:
        leaves = [name for name, imported in left.items() if not imported & left.keys()]
        if not leaves:
            break
        for name in leaves:
            del left[name]

    assert {name: imported & left.keys() for name, imported in left.items()} == {}


def test_no_module_forks_and_only_cryptography_is_replaced_in_sys_modules() -> None:
    forks, stand_ins = [], []
    for path in PACKAGE.rglob("*.py"):
        for line in path.read_text(encoding="utf-8").splitlines():
            forks += [str(path)] if re.search(r"\bos\.fork(pty)?\b", line) else []
            changes = re.search(r"sys\.modules(\[[^]]+\] *=|\.(setdefault|update|pop)\()", line)
            stand_ins += [line.strip()] if changes else []

    assert forks == []
    assert [line for line in stand_ins if '"cryptography"' not in line] == []
