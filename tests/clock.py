"""A clock that stands still while the machine stalls."""

from __future__ import annotations

import threading
import time

#: Seconds between two looks at the time, and at what a test waits for.
LOOK = 0.02

# Seconds between two looks: what is more is not counted, and from what on it is a stall.
_LONGEST_GAP, _STALL = 0.5, 1.0


class _Clock(threading.Thread):
    """Counts the seconds for which the machine runs, and its stalls."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.running = 0.0
        self.stalls = 0
        self.start()

    def run(self) -> None:
        before = time.monotonic()
        while True:
            time.sleep(LOOK)
            now = time.monotonic()
            self.running += min(now - before, _LONGEST_GAP)
            self.stalls += now - before > _STALL
            before = now


CLOCK = _Clock()
