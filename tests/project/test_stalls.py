"""Tests that run again, and those that do not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.conftest import PATIENCE, PROJECT

TESTS = """
import gc
import subprocess
from tests.clock import CLOCK

runs = []

def test_during_a_stall(tmp_path):
    (tmp_path / "new").mkdir()
    CLOCK.stalls += 1
    runs.append("during a stall")
    running = subprocess.Popen(["sleep", "1"])
    assert len(runs) == 2
    running.wait()

def test_that_finds_what_is_left():
    gc.collect()

def test_without_a_stall():
    runs.append("without a stall")
    assert len(runs) == 4

def test_with_stalls_for_ever():
    CLOCK.stalls += 1
    runs.append("with stalls")
    assert len(runs) == 0
"""


def test_test_that_fails_is_run_again_only_if_the_machine_stalled(tmp_path: Path) -> None:
    file = tmp_path / "test_it.py"
    file.write_text(TESTS)
    options = ["-p", "tests.stalls", "-p", "no:cacheprovider", "-W", "error"]
    words = [sys.executable, "-m", "pytest", *options, str(file)]
    environment = os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    done = subprocess.run(
        words, cwd=PROJECT, env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False
    )

    assert "2 failed, 2 passed" in done.stdout, done.stdout + done.stderr
    _, _, after = done.stdout.partition("run again, because they failed while the machine stalled")
    named = [line.rpartition("::")[2] for line in after.splitlines()[1:3]]
    assert named == ["test_during_a_stall", "test_with_stalls_for_ever"]
