"""What the suite tried and what went wrong, counted over all its processes, for the tables printed at its end.

A test that checks one of `PROMISES` says so by `tried`; where the promise was broken, it says so by `broken` before it
fails, so that the table and the failures agree. `worked_with` tells with which version of what a feature was seen to
work; `tests/run --record` writes both tables down, this one into README and the other into SECURITY.md.
"""

from __future__ import annotations

import contextlib
import textwrap
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


def promises_table() -> list[str]:
    """The table of what was tried and how often each promise was broken."""
    lines = ["| tried | times | what must never come of it |", "|---|---:|---|"]
    for what, never in PROMISES.items():
        counts = ", ".join(f"{promise}: {_broken[promise]}" for promise in never)
        lines.append(f"| {what} | {_tried[what]} | {counts} |")
    return lines


def _version_order(name: str) -> tuple[str, list[int], str]:
    program, _, version = name.rpartition(" ")
    return program, [int(part) for part in version.split(".") if part.isdigit()], version


def versions_table() -> list[str]:
    """What was seen to work: with every git; a table of what only some have; then all else by program."""
    gits = sorted((name for name in _versions if name.startswith("git ")), key=_version_order)
    numbers = [name.removeprefix("git ") for name in gits]
    features = set().union(*(_versions[name] for name in gits))
    with_all = {feature for feature in features if all(feature in _versions[name] for name in gits)}
    lines = _wrapped(f"With git {', '.join(numbers)}: {'; '.join(sorted(with_all))}.")
    if with_all != features:
        lines += ["", f"| git | {' | '.join(numbers)} |", "|---|" + ":-:|" * len(gits)]
    for feature in sorted(features - with_all):
        ticks = ["✓" if feature in _versions[name] else "–" for name in gits]  # a dash on purpose
        lines.append(f"| {feature} | {' | '.join(ticks)} |")
    others: defaultdict[str, list[str]] = defaultdict(list)
    for name in sorted(set(_versions) - set(gits), key=_version_order):
        kind, colon, which = name.partition(": ")
        others[kind].append(which if colon else "")
    seen = "; ".join(f"{kind}: {', '.join(which)}" if any(which) else kind for kind, which in others.items())
    return [*lines, "", *_wrapped(f"Seen to work, too: {seen}.")] if others else lines


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, 120, break_on_hyphens=False)


def recorded(text: str, name: str, table: list[str]) -> str:
    """Return ``text`` with ``table`` between the marks of that name."""
    begin, end = f"<!-- {name}: written by tests/run --record -->", f"<!-- end of {name} -->"
    before, found, rest = text.partition(begin)
    _, closed, after = rest.partition(end)
    assert found, f"no mark {begin}"
    assert closed, f"no mark {end}"
    return "\n".join([before + begin, *table, end + after])
