"""Reasons and remedies for files that cannot be read or written."""

import os
import stat
import sys
from shlex import quote

# The commands that can write into places of the system.
_COMMANDS = ("register", "unregister", "configure", "unconfigure", "uninstall")


def remedy_for(cause: OSError | ValueError | os.stat_result, path: str) -> tuple[str, str]:
    """Return the reason and the remedy for a file that could not be opened, or is not a regular file."""
    if isinstance(cause, os.stat_result):
        if stat.S_ISDIR(cause.st_mode):
            remedy = f"put the file at {path}: container runtimes make a folder there if a mount's file is missing"
            return "it is a folder", remedy
        return "not a regular file", "give the path of a regular file"
    reason = getattr(cause, "strerror", None) or "it cannot be read"
    if isinstance(cause, FileNotFoundError):
        return reason, "check the path: nothing is there"
    if isinstance(cause, PermissionError):
        user = getattr(os, "geteuid", lambda: "USER")()
        remedy = (
            f"let this user read it: chown {user} {quote(path)}; for a container build's secret, add uid={user} to its "
            "mount"
        )
        return reason, remedy
    if isinstance(cause, OSError):
        return reason, f"check what is at {path}"
    return "not a path", "give the path of a file"


def look_at(path: str) -> str:
    """Return the hint to look at the owner and mode of ``path``, or of the nearest folder above it that exists."""
    while not os.path.lexists(path) and os.path.dirname(path) != path:
        path = os.path.dirname(path)
    return f"check who owns it, and its mode: ls -ld {quote(path)}"


def reason_and_remedy(problem: OSError, otherwise: str) -> tuple[str, str]:
    """Return the reason why a private folder cannot be used, and the command that corrects that, or ``otherwise``."""
    why, _, command = (problem.strerror or str(problem)).partition("; run: ")
    return why, f"run: {command}" if command else otherwise


def as_root(otherwise: str) -> str:
    """Return the hint to run the same command as root; if this is root, ``otherwise``.

    It does not repeat values, because they may be secrets.
    """
    if sys.platform == "win32":
        return "run the same command as an administrator"
    if os.geteuid() == 0:
        return otherwise
    words = [
        word if word in _COMMANDS else word.partition("=")[0] if word.startswith("--") else "…" for word in sys.argv[1:]
    ]
    return f"run it as root: sudo {quote(os.path.abspath(sys.argv[0]))} {' '.join(words)}"


def remedy_for_value(value: str) -> tuple[str, str]:
    """Return the reason and the remedy for a variable that is neither a payload nor an existing path.

    They do not repeat the value, which may be a secret.
    """
    if value.startswith("/"):
        try:
            os.stat(value)
        except PermissionError as problem:
            return (
                f"its path cannot be reached: {problem.strerror}",
                "let this user enter the folders of that path",
            )
        except OSError as problem:
            return (
                f"nothing is at its path: {problem.strerror}",
                "check the path; a container has files of its own",
            )
    if value.startswith("~/"):
        return "nothing is at its path, because ~ is not a folder", "write the home folder's path in place of ~"
    return (
        "it is neither JSON, nor JSON in base64, nor the path of a file",
        "set it to a payload's path, to its JSON, or to base64 of that",
    )
