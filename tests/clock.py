"""A clock that stands still while the machine stalls."""

from __future__ import annotations

import threading
import time

#: Seconds between two looks at the time, and at what a test waits for.
LOOK = 0.02

# Seconds between two looks: what is more is not counted.
_LONGEST_GAP = 0.5


class _Clock(threading.Thread):
    """Counts the seconds for which the machine runs."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.running = 0.0
        self.start()

    def run(self) -> None:
        before = time.monotonic()
        while True:
            time.sleep(LOOK)
            now = time.monotonic()
            self.running += min(now - before, _LONGEST_GAP)
            before = now


CLOCK = _Clock()
