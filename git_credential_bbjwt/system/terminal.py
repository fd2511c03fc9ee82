"""Questions at a terminal, with or without echo, and the progress bar."""

import os
import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager

# Characters of the progress bar.
_WIDTH = 30


def with_bar(what: str, steps: range) -> Generator[int, None, None]:
    """Yield the numbers of ``steps``. Meanwhile a terminal shows a bar, and counts up to their end."""
    is_shown = steps.stop > steps.step and os.isatty(2)
    try:
        for done in steps:
            if is_shown and done * _WIDTH % steps.stop < steps.step * _WIDTH:  # The bar has grown.
                bar = "#" * (done * _WIDTH // steps.stop)
                sys.stderr.write(f"\r[{bar:.<{_WIDTH}}] {what} {done} of {steps.stop}")
                sys.stderr.flush()
            yield done
    finally:
        if is_shown:
            sys.stderr.write("\r\033[K")
            sys.stderr.flush()


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
