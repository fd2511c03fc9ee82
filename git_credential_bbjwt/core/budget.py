"""The time one call may take in all (``--timeout``), and the watchdog that holds it whatever the call is stuck in."""

import os
import threading
import time
from collections.abc import Callable

from git_credential_bbjwt.core.failures import BudgetSpentError
from git_credential_bbjwt.core.output import error, note
from git_credential_bbjwt.system import child_process

# Seconds after which a person in front of a terminal begins to wonder.
_WONDER = 3.0

# Seconds the watchdog leaves the call to notice by itself, for the better message.
_GRACE = 0.05


class Budget:
    """A deadline. ``doing`` says in words what is being waited for, for messages; ``progress`` takes its place.

    The watchdog is a thread: it can end the process where no exception could be raised, in a name look-up or behind a
    server that sends a byte a second. Exactly one of the two speaks: the call, once `finish` has returned, or the
    watchdog.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.doing = "starting"
        self.progress = ""
        self._end = time.monotonic() + seconds
        self._speaker = threading.Lock()
        self._finished = False

    def remaining(self) -> float:
        """Seconds left. Raises BudgetSpentError when there are none."""
        left = self._end - time.monotonic()
        if left <= 0:
            raise self.spent()
        return left

    def spent(self) -> BudgetSpentError:
        """The error for a budget that is over, with what was being waited for."""
        return BudgetSpentError(
            f"gave up after {self.seconds:g} s: {self.progress or self.doing}",
            "try again; allow more time with --timeout SECONDS; git-credential-bbjwt doctor finds what hangs",
        )

    def watch(self, give_up: Callable[[BudgetSpentError], None]) -> None:
        """Start the watchdog. When the budget is over it calls ``give_up``, then ends the process with status 1."""
        threading.Thread(target=self._watch, args=(give_up,), daemon=True).start()

    def _watch(self, give_up: Callable[[BudgetSpentError], None]) -> None:
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
        """Claim the last word. It never returns when the watchdog has it already: the process is ending."""
        with self._speaker:
            self._finished = True


def say_that_time_is_up(spent: BudgetSpentError) -> None:
    """Print the error of a budget that is over."""
    error(spent.what, spent.hint)
