"""The work of `site` at a Python's start, done later because the command was started without it.

install.sh starts the command with ``-S``: `site` takes a fifth of a start, and an answer from the cache needs none of
it. All else does: ``.pth`` files of packages added by ``--with``, keyring backends found by their entry points.
"""

import sys


def load() -> None:
    """Set up the environment's packages as usual (Python's documentation, "site"); once, and only if needed."""
    global _loaded
    if sys.flags.no_site and not _loaded:
        _loaded = True
        del sys.path[0]  # Where the command's own file put it; `site` puts it after Python's own library.
        import site

        site.main()


_loaded = False
