"""A test that fails while the machine stalls is run again.

The machines of CI stop for seconds now and then. Afterwards, every budget and every patience of a few seconds is over,
so the helper gives up although nothing is wrong. A test that fails while the machine runs is never run again.
"""

from __future__ import annotations

import gc
import sys
import warnings

import pytest
from _pytest.runner import runtestprotocol

from tests.clock import CLOCK

# Number of times that a test may run.
_MOST_RUNS = 3

_PROPERTY = ("run again", "the machine stalled")

_run_again: list[str] = []


def _close_what_is_left() -> None:
    """Drop what a failed test had open. Otherwise, the warnings about it would fail the next test."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in ("last_exc", "last_type", "last_value", "last_traceback"):
            vars(sys).pop(name, None)
        gc.collect()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool:
    """Run a test, and again if it fails and the machine has stalled meanwhile."""
    assert isinstance(item, pytest.Function)
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    for run in range(1, _MOST_RUNS + 1):
        stalls = CLOCK.stalls
        reports = runtestprotocol(item, nextitem=nextitem, log=False)
        if run == _MOST_RUNS or CLOCK.stalls == stalls or not any(report.failed for report in reports):
            break
        item.user_properties.append(_PROPERTY)
        _close_what_is_left()
        item._initrequest()  # For new fixtures.
    for report in reports:
        item.ihook.pytest_runtest_logreport(report=report)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when == "teardown" and _PROPERTY in map(tuple, report.user_properties):
        _run_again.append(report.nodeid)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Name the tests that ran again."""
    if _run_again and not hasattr(terminalreporter.config, "workerinput"):
        terminalreporter.section("run again, because they failed while the machine stalled")
        for name in _run_again:
            terminalreporter.line(name)
