"""The registry as version 1.0 had it: one file. It is read until a command changes it."""

import os

from git_credential_bbjwt.installations.source import Named
from git_credential_bbjwt.system.ownership import why_not_ours, why_not_trusted


class OldRegistry(Named):
    """A registry of version 1.0."""

    def _why_refused(self, fd: int, found: os.stat_result) -> str | None:
        # Who can write here chooses where the JWTs go.
        if why_not_ours(fd, found):
            return "others can write to it, or it is another user's"
        try:
            return why_not_trusted(os.path.dirname(self.where)) or None
        except OSError as gone:
            return gone.strerror or "its folder is gone"
