"""Who can have written, replaced or read a file or folder."""

import os
import stat
import sys

__all__ = [
    "is_administrator",
    "is_private",
    "others_can_read",
    "why_not_itself_trusted",
    "why_not_ours",
    "why_not_trusted",
]

if sys.platform == "win32":
    from git_credential_bbjwt.system.windows.files import (
        is_administrator,
        is_private,
        others_can_read,
        why_not_itself_trusted,
        why_not_ours,
        why_not_trusted,
    )

else:

    def why_not_trusted(path: str) -> str:
        """Why what stands in the folder ``path`` cannot be trusted to be this user's choice or root's; empty if it can.

        Raises FileNotFoundError where there is no such folder, OSError where it cannot be looked at.
        """
        why_not = why_not_itself_trusted(path)
        if why_not:
            return why_not
        above = os.path.dirname(path)
        while True:
            found = os.lstat(above)
            if stat.S_ISLNK(found.st_mode):  # What it leads to counts.
                above = os.path.realpath(above, strict=True)
                continue
            if found.st_uid not in (0, os.geteuid()) or (found.st_mode & 0o002 and not found.st_mode & stat.S_ISVTX):
                return f"others can replace its folder: see who owns {above}, and its mode"
            if above == os.path.dirname(above):
                return ""
            above = os.path.dirname(above)

    def why_not_itself_trusted(path: str) -> str:
        """The same for who already knows that the folder it is in is trusted."""
        found = os.lstat(path)
        if stat.S_ISLNK(found.st_mode):
            return "it is reached through a link"
        if found.st_uid not in (0, os.geteuid()):
            return "its folder is another user's"
        return f"others can write to its folder; run: chmod go-w {path}" if found.st_mode & 0o022 else ""

    def is_private(path: str) -> bool:
        """Whether ``path`` is a real folder, not a link, that belongs to this user and that nobody else can enter."""
        try:
            found = os.lstat(path)
        except OSError:
            return False
        return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o077

    def why_not_ours(fd: int, found: os.stat_result) -> str | None:  # noqa: ARG001  # other systems ask for the rules
        """Why others than this user and root may have chosen what is in an open file; None where they cannot have."""
        if found.st_uid not in (0, os.geteuid()):
            return f"it belongs to another user (number {found.st_uid})"
        if found.st_mode & 0o022:
            return f"others can write to it (mode {found.st_mode & 0o777:04o})"
        return None

    def others_can_read(fd: int, found: os.stat_result) -> bool:  # noqa: ARG001  # as above
        """Whether others than its user and root can read a file.

        Where it is another's, it is by its group or an access control list that we are let in, on purpose: so do
        systemd with a credential and Kubernetes with a secret.
        """
        return bool(found.st_mode & (0o044 if found.st_uid == os.geteuid() else 0o004))

    def is_administrator() -> bool:
        """Whether this is root."""
        return os.geteuid() == 0
