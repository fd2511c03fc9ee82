"""The files of the machine's root, as a process in a user namespace sees them.

In a user namespace that maps only some user IDs, all other files appear to belong to the overflow user. These files are
most likely root's (/home, /etc). They are treated as root's if no folder above them can be written by a group or by
others, because then nobody else can have put them there.
"""

import os


def belongs_to_outer_root(uid: int, path: str) -> bool:
    """Return whether ``path``, whose owner appears as ``uid``, most likely belongs to the root outside."""
    return _is_unmapped(uid) and not _others_can_write_above(path)


def _is_unmapped(uid: int) -> bool:
    """Return whether ``uid`` stands for all user IDs that this user namespace does not map (user_namespaces(7))."""
    try:
        with open("/proc/sys/kernel/overflowuid") as overflow, open("/proc/self/uid_map") as mapped:
            return uid == int(overflow.read()) and mapped.read().split() != ["0", "0", "4294967295"]
    except (OSError, ValueError):
        return False


def _others_can_write_above(path: str) -> bool:
    path = os.path.realpath(path)
    while path != os.path.dirname(path):
        path = os.path.dirname(path)
        try:
            if os.stat(path).st_mode & 0o022:
                return True
        except OSError:
            return True
    return False
