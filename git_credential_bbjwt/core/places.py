"""Folders of the helper's files, as platformdirs names them.

Importing platformdirs takes longer than a whole Python start, and a cached answer needs three of its folders. On Linux
and the BSDs this module follows the XDG Base Directory specification itself; a test compares it with platformdirs. On
other systems platformdirs is used.
"""

import os
import stat
import sys

from git_credential_bbjwt.core.ownership import is_trusted_owner

#: Distribution, keyring service and folder name.
APP_NAME = "git-credential-bbjwt"

_XDG = sys.platform.startswith(("linux", "freebsd", "openbsd", "netbsd"))


def _home() -> str | None:
    """Return the user's home; None if it does not exist or belongs to another user."""
    home = os.environ.get("HOME", "")
    if sys.platform != "win32" and not home.startswith("/"):
        try:
            import pwd

            home = pwd.getpwuid(os.getuid()).pw_dir
        except KeyError:
            return None
    try:
        found = os.stat(home) if home.startswith("/") else None
    except OSError:
        return None
    if found is None or not stat.S_ISDIR(found.st_mode):
        return None
    return home if is_trusted_owner(found.st_uid, home) else None


def _belongs_to_another(path: str) -> bool:
    """Return whether ``path``, or the nearest existing folder above it, belongs to neither this user nor root.

    ``path`` is absolute.
    """
    while True:
        try:
            return not is_trusted_owner(os.stat(path).st_uid, path)
        except OSError:
            path = os.path.dirname(path)


def home_is_anothers() -> bool:
    """Return whether HOME belongs to another user, as for root under ``sudo -E``.

    Nothing below such a HOME is read or created.
    """
    return is_anothers("HOME")


def why_no_home() -> str:
    """Return the reason for an error about a missing home folder; empty if the folder just does not exist."""
    return ": HOME belongs to another user" if home_is_anothers() else ""


def is_anothers(variable: str) -> bool:
    """Return whether ``variable`` names a home folder, or one of the XDG specification, of another user."""
    value = os.environ.get(variable, "")
    if sys.platform == "win32" or not value.startswith("/") or not (variable == "HOME" or variable.startswith("XDG_")):
        return False
    return any(_belongs_to_another(path) for path in value.split(":") if path.startswith("/"))


def _xdg(variable: str, below_home: str) -> str | None:
    base = os.environ.get(variable, "")
    if not base.startswith("/") or _belongs_to_another(base):  # The specification ignores relative paths.
        home = _home()
        if home is None:
            return None
        base = home.rstrip("/") + "/" + below_home
    return base + "/" + APP_NAME


def user_config_folder() -> str | None:
    """Return the folder of the user registry; None if the user has no home."""
    if _XDG:
        return _xdg("XDG_CONFIG_HOME", ".config")
    import platformdirs

    return platformdirs.user_config_dir(APP_NAME, appauthor=False)


def site_config_folder() -> str:
    """Return the folder of the system registry."""
    if _XDG:
        for base in os.environ.get("XDG_CONFIG_DIRS", "").split(":"):
            if base.startswith("/"):
                return base + "/" + APP_NAME
        return "/etc/xdg/" + APP_NAME
    import platformdirs

    return platformdirs.site_config_dir(APP_NAME, appauthor=False)


def user_cache_folder() -> str | None:
    """Return the folder of the files that are kept on disk; None if the user has no home."""
    if _XDG:
        return _xdg("XDG_CACHE_HOME", ".cache")
    import platformdirs

    return platformdirs.user_cache_dir(APP_NAME, appauthor=False)


def user_runtime_base() -> str | None:
    """Return the user's runtime folder. The caller must check that it is private to the user.

    Only XDG systems have one. macOS has no folder in memory for a user.
    """
    if sys.platform == "win32" or not _XDG:
        return None
    if home_is_anothers():
        return None  # Under `sudo -E` the environment belongs to another user, so no tokens are kept.
    base = os.environ.get("XDG_RUNTIME_DIR", "")
    return base if base.startswith("/") else f"/run/user/{os.geteuid()}"


def git_home() -> str:
    """Return the folder of git's ``.gitconfig`` (git-config(1), "FILES"; Git for Windows asks Windows)."""
    home = os.environ.get("HOME", "")
    if sys.platform == "win32" and not home:
        home = os.environ.get("HOMEDRIVE", "") + os.environ.get("HOMEPATH", "") or os.environ.get("USERPROFILE", "")
    return home.replace("\\", "/") if sys.platform == "win32" else home
