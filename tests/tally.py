"""The versions that worked in the tests, for the lines at the suite's end."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

_PROPERTY = "worked with"

_versions: defaultdict[str, set[str]] = defaultdict(set)


def worked_with(program: str, version: str, feature: str = "") -> tuple[str, tuple[str, str]]:
    """Return the property (pytest's ``record_property``) of a test that shows that ``feature`` works with a version.

    If the program's name ends with a colon, all its versions (or kinds) are printed together.
    """
    return _PROPERTY, (f"{program} {version}", feature)


def note(properties: list[tuple[str, Any]]) -> None:
    """Remember the properties of a test that passed."""
    for name, value in properties:
        if name == _PROPERTY:
            _versions[value[0]].add(value[1])


def _version_order(name: str) -> tuple[str, list[int], str]:
    program, _, version = name.rpartition(" ")
    return program, [int(part) for part in version.split(".") if part.isdigit()], version


def versions() -> list[str]:
    """Return a line for each program that worked, with its versions or kinds, and for features of only some gits."""
    gits = sorted((name for name in _versions if name.startswith("git ")), key=_version_order)
    lines = [f"git: {', '.join(name.removeprefix('git ') for name in gits)}"] if gits else []
    for feature in sorted(set().union(*(_versions[name] for name in gits))):
        without = [name.removeprefix("git ") for name in gits if feature not in _versions[name]]
        lines += [f"  {feature}: not with {', '.join(without)}"] if without else []
    others: defaultdict[str, list[str]] = defaultdict(list)
    for name in sorted(set(_versions) - set(gits), key=_version_order):
        program, _, version = name.rpartition(" ")
        others[program.removesuffix(":")].append(version)
    return [*lines, *(f"{program}: {', '.join(seen)}" for program, seen in others.items())]
