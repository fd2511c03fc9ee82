"""What every wing stands on. What an operating system does in its own way is chosen here, by an import.

`posix` and `windows` have the same names; `child_process`, `shell`, `lock`, `core_dumps`, `terminal` and `run_folder`
choose likewise, once each, for what is theirs.
"""

import sys

if sys.platform == "win32":
    from git_credential_bbjwt.system.windows import (
        NOT_YET,
        PrivateFolder,
        is_administrator,
        is_private,
        open_standard_descriptors,
        open_to_append,
        open_to_read,
        others_can_read,
        why_not_itself_trusted,
        why_not_ours,
        why_not_trusted,
    )
else:
    from git_credential_bbjwt.system.posix import (
        NOT_YET,
        PrivateFolder,
        is_administrator,
        is_private,
        open_standard_descriptors,
        open_to_append,
        open_to_read,
        others_can_read,
        why_not_itself_trusted,
        why_not_ours,
        why_not_trusted,
    )

__all__ = [
    "NOT_YET",
    "PrivateFolder",
    "file_name",
    "is_administrator",
    "is_private",
    "open_standard_descriptors",
    "open_to_append",
    "open_to_read",
    "others_can_read",
    "why_not_itself_trusted",
    "why_not_ours",
    "why_not_trusted",
]

# A host's colon and a scope's blank have stand-ins, for Windows knows neither at such a place in a name. No letter in
# upper case: there are file systems that take it for the lower one.
_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyz0123456789._-{}[]: ,")

# File systems stop at 255, and files beside this one have a longer name. Characters.
_LONGEST_NAME = 200


def file_name(*parts: str) -> str:
    """Return a name that no other list of two or more parts has."""
    name = ",".join(parts)
    if len(name) <= _LONGEST_NAME and _PLAIN.issuperset(name) and name.count(",") == len(parts) - 1:
        return name.replace(":", "=").replace(" ", "+")

    from git_credential_bbjwt.system.digest import digest

    return digest(*parts)
