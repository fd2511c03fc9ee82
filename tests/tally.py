"""What the suite was seen to work with, over all its processes, for the lines printed at its end."""

from __future__ import annotations

import contextlib
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any

#: What is tried, and what never may come of it.
PROMISES = {
    "hostile inputs": ("a password to a wrong place", "a traceback"),
    "faults injected": ("a hang over the budget", "a token from a bad answer"),
    "processes killed": ("a broken record", "a stuck lock"),
    "registrations raced or broken off": ("a lost registration",),
    "processes watched for secrets": ("a secret in sight",),
    "processes run": ("a traceback",),
}

_tried: Counter[str] = Counter()
_broken: Counter[str] = Counter()
_PROPERTY = "worked with"

_versions: defaultdict[str, set[str]] = defaultdict(set)


def tried(what: str, times: int = 1) -> None:
    """Count an attempt at breaking a promise."""
    assert what in PROMISES
    _tried[what] += times


def broken(promise: str) -> None:
    """Count a broken promise."""
    assert any(promise in never for never in PROMISES.values())
    _broken[promise] += 1


@contextlib.contextmanager
def holds(promise: str) -> Iterator[None]:
    """Whatever assertion fails in this block breaks ``promise``."""
    try:
        yield
    except AssertionError:
        broken(promise)
        raise


def worked_with(program: str, version: str, feature: str = "") -> tuple[str, tuple[str, str]]:
    """The property (pytest's ``record_property``) of a test that, if it passes, shows ``feature`` to work with that.

    Of programs whose name ends with a colon, all versions (or kinds) are told together.
    """
    return _PROPERTY, (f"{program} {version}", feature)


def note(properties: list[tuple[str, Any]]) -> None:
    """Take up the properties of a test that passed."""
    for name, value in properties:
        if name == _PROPERTY:
            _versions[value[0]].add(value[1])


def export() -> dict[str, Any]:
    """What one process counted, in plain values."""
    return {"tried": dict(_tried), "broken": dict(_broken)}


def add(counted: dict[str, Any]) -> None:
    """Add what another process counted."""
    _tried.update(counted["tried"])
    _broken.update(counted["broken"])


def _version_order(name: str) -> tuple[str, list[int], str]:
    program, _, version = name.rpartition(" ")
    return program, [int(part) for part in version.split(".") if part.isdigit()], version


def versions() -> list[str]:
    """What was seen to work, a line each: a program with its versions or kinds, and features of some gits alone."""
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
