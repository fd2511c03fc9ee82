"""No dump of a process that holds a secret: it would stand in a file, or be sent somewhere (core(5))."""

import sys

if sys.platform == "win32":
    import ctypes

    def forbid() -> None:
        """Keep what is in memory out of error reports ("WerSetFlags function")."""
        without_heap = 0x1
        ctypes.windll.kernel32.WerSetFlags(without_heap)

else:
    import resource

    def forbid() -> None:
        """Keep secrets out of core dumps, ours and our children's.

        One byte rather than none: core(5) handlers behind a pipe are run at 0 too, and Linux takes 1 for "no dump at
        all".
        """
        _, hard = resource.getrlimit(resource.RLIMIT_CORE)
        resource.setrlimit(resource.RLIMIT_CORE, (1 if hard else 0, hard))
