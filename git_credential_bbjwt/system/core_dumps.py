"""Keep secrets out of core dumps, which are stored in files or sent to a crash reporter (core(5))."""

import sys

if sys.platform == "win32":
    import ctypes

    def forbid() -> None:
        """Keep memory out of error reports ("WerSetFlags function")."""
        without_heap = 0x1
        ctypes.windll.kernel32.WerSetFlags(without_heap)

else:
    import resource

    # The soft limit that this process was started with; None before `forbid` changes it.
    _callers_limit: int | None = None

    def forbid() -> None:
        """Keep this process and its children from dumping core.

        The limit is 1 byte, which Linux treats as "no dump at all". With a limit of 0, it still runs a handler behind
        a pipe (core(5)).
        """
        global _callers_limit
        soft, hard = resource.getrlimit(resource.RLIMIT_CORE)
        if _callers_limit is None:
            _callers_limit = soft
        resource.setrlimit(resource.RLIMIT_CORE, (1 if hard else 0, hard))

    def permit_as_before() -> None:
        """Set the limit that this process was started with, for the command that replaces it."""
        if _callers_limit is not None:
            _, hard = resource.getrlimit(resource.RLIMIT_CORE)
            resource.setrlimit(resource.RLIMIT_CORE, (_callers_limit, hard))
