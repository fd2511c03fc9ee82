"""Load `site` later than at Python's start.

install.sh starts the command with ``-S``, because `site` takes a fifth of the start and a cached answer does not need
it. Everything else does: ``.pth`` files of packages added by ``--with``, and entry points of keyring backends.
"""

import sys


def load() -> None:
    """Set up the environment's packages as usual (Python's documentation, "site"), if that is needed.

    Call this only once.
    """
    if sys.flags.no_site:
        packages = sys.path.pop(0)  # The command's file put them first; `site` adds them after Python's own library.
        import site

        site.main()
        if packages not in sys.path:
            # An upgrade of the system has replaced Python, and `site` looks into a folder with the new version's name.
            site.addsitedir(packages)
