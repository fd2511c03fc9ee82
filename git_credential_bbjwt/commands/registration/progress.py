"""A progress bar."""

import os
import sys

_WIDTH = 30


class Progress:
    """A bar on a terminal; elsewhere nothing is shown."""

    def __init__(self, what: str, of: int) -> None:
        self._what, self._of, self._done = what, of, 0
        self._is_shown = of > 1 and os.isatty(2)

    def advance(self, by: int = 1) -> None:
        """Count ``by`` more."""
        before = self._done * _WIDTH // self._of
        self._done += by
        filled = self._done * _WIDTH // self._of
        if self._is_shown and (filled != before or self._done == by):
            bar = "#" * filled + "." * (_WIDTH - filled)
            sys.stderr.write(f"\r[{bar}] {self._what} {self._done} of {self._of}")
            sys.stderr.flush()

    def end(self) -> None:
        """Clear the terminal's line."""
        if self._is_shown and self._done:
            sys.stderr.write("\r\033[K")
            sys.stderr.flush()
