"""Where files live: the folders platformdirs names, found without importing it where that is a matter of one rule.

Importing platformdirs costs more than a whole Python start, and a cached answer needs three of its folders. On Linux
and the BSDs they are the XDG Base Directory specification's, which fits in this file; a test holds these functions to
platformdirs' answers. Elsewhere platformdirs is asked.
"""

import os
import sys

#: Distribution, keyring service and folder name.
APP_NAME = "git-credential-bbjwt"

_XDG = sys.platform.startswith(("linux", "freebsd", "openbsd", "netbsd"))


def _home() -> str | None:
    """The user's home; None where there is none: it is not for us to make one."""
    home = os.environ.get("HOME", "")
    if not home.startswith("/"):
        try:
            import pwd

            home = pwd.getpwuid(os.getuid()).pw_dir
        except (ImportError, KeyError):
            return None
    return home if home.startswith("/") and os.path.isdir(home) else None


def _xdg(variable: str, below_home: str) -> str | None:
    base = os.environ.get(variable, "")
    if not base.startswith("/"):  # The specification: relative paths are to be ignored.
        home = _home()
        if home is None:
            return None
        base = home.rstrip("/") + "/" + below_home
    return base + "/" + APP_NAME


def user_config_folder() -> str | None:
    """The folder of the user registry; None where the user has no home."""
    if _XDG:
        return _xdg("XDG_CONFIG_HOME", ".config")
    import platformdirs

    return platformdirs.user_config_dir(APP_NAME, appauthor=False)


def site_config_folder() -> str:
    """The folder of the system registry."""
    if _XDG:
        for base in os.environ.get("XDG_CONFIG_DIRS", "").split(":"):
            if base.startswith("/"):
                return base + "/" + APP_NAME
        return "/etc/xdg/" + APP_NAME
    import platformdirs

    return platformdirs.site_config_dir(APP_NAME, appauthor=False)


def user_cache_folder() -> str | None:
    """The folder of the token cache where there is no private runtime folder; None where the user has no home."""
    if _XDG:
        return _xdg("XDG_CACHE_HOME", ".cache")
    import platformdirs

    return platformdirs.user_cache_dir(APP_NAME, appauthor=False)


def user_runtime_base() -> str | None:
    """The folder that ought to be the user's runtime folder. Whether it is private to the user is not checked here.

    Only XDG systems have one: macOS keeps nothing in memory for a user, so its cache folder serves there.
    """
    if not _XDG:
        return None
    base = os.environ.get("XDG_RUNTIME_DIR", "")
    return base if base.startswith("/") else f"/run/user/{os.geteuid()}"
