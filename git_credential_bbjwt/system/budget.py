"""The time that a call may take (``--timeout``), and the watchdog that ends the call whatever it is waiting for."""

import os
import threading
import time
from collections.abc import Callable

from git_credential_bbjwt.core.failures import BudgetSpentError
from git_credential_bbjwt.core.output import error, note
from git_credential_bbjwt.system import child_process

# Seconds after which a note says what the call is waiting for.
_WONDER = 3.0

# Seconds that the watchdog waits after the budget's end, because the call's own error says more.
_GRACE = 0.05


class Budget:
    """A deadline. ``doing`` names, for messages, what the call is waiting for; ``progress`` replaces it.

    The watchdog is a thread. It can end the process where no exception can be raised: in a name look-up, or while a
    server sends one byte per second. Either the call prints the result, after `finish` has returned, or the watchdog
    prints the error; never both.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.doing = "starting"
        self.progress = ""
        self._end = time.monotonic() + seconds
        self._speaker = threading.Lock()
        self._finished = False

    def remaining(self) -> float:
        """Return the seconds that are left. Raises BudgetSpentError if there are none."""
        left = self._end - time.monotonic()
        if left <= 0:
            raise self.spent()
        return left

    def spent(self) -> BudgetSpentError:
        """Return the error for a budget that is over. It names what the call was waiting for."""
        return BudgetSpentError(
            f"gave up after {self.seconds:g} s: {self.progress or self.doing}",
            "try again, allow more time with --timeout SECONDS, or find the cause: git-credential-bbjwt doctor",
        )

    def watch(self, give_up: Callable[[BudgetSpentError], object]) -> None:
        """Start the watchdog. When the budget is over, it calls ``give_up`` and ends the process with status 1."""
        threading.Thread(target=self._watch, args=(give_up,), daemon=True).start()

    def _watch(self, give_up: Callable[[BudgetSpentError], object]) -> None:
        left = self._end - time.monotonic() + _GRACE
        if left > _WONDER:
            time.sleep(_WONDER)
            left -= _WONDER
            with self._speaker:
                if self._finished:
                    return
                note(f"still {self.doing}")
        time.sleep(max(left, 0))
        with self._speaker:
            if self._finished:
                return
            give_up(self.spent())
            child_process.end_all()
            os._exit(1)

    def finish(self) -> None:
        """Stop the watchdog. If the watchdog is already ending the process, this function does not return."""
        with self._speaker:
            self._finished = True


def say_that_time_is_up(spent: BudgetSpentError) -> None:
    """Print the error of a budget that is over."""
    error(spent.what, spent.hint)
