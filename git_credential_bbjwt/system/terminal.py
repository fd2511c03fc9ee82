"""Questions at a terminal, with or without echo."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


def ask(question: str) -> str:
    """Ask on standard error; return the line that is typed."""
    sys.stderr.write(question)
    sys.stderr.flush()
    return sys.stdin.readline().strip()


if sys.platform == "win32":
    import msvcrt

    @contextmanager
    def unseen() -> Iterator[Callable[[], bytes]]:
        """Give what reads the next characters from the terminal, as they are typed, and shows none."""
        yield lambda: msvcrt.getwch().encode("utf-8", "surrogatepass")

else:
    import termios

    @contextmanager
    def unseen() -> Iterator[Callable[[], bytes]]:
        """Give what reads the next characters from the terminal, as they are typed, and shows none."""
        before = termios.tcgetattr(0)
        changed = termios.tcgetattr(0)
        # Not by lines either: the terminal cuts one after 4095 characters, and a payload may be a single one.
        changed[3] &= ~(termios.ECHO | termios.ICANON)
        changed[6][termios.VMIN], changed[6][termios.VTIME] = 1, 0
        termios.tcsetattr(0, termios.TCSAFLUSH, changed)
        try:
            yield lambda: os.read(0, 4096)
        finally:
            termios.tcsetattr(0, termios.TCSAFLUSH, before)
