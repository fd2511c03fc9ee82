"""Child processes of ours: no secret in their environment or arguments, and an end within the call's time."""

import os

from git_credential_bbjwt.sources import SECRET_VARIABLES

# Git's trace variables would make a child write into our output or the user's trace file.
_TRACE_PREFIX = "GIT_TRACE"

# What may hold a password and only a keyring backend has a use for: a proxy's URL, a backend's properties.
_PROXY_SUFFIX = "_proxy"
_KEYRING_PREFIX = "KEYRING_PROPERTY_"


def for_keyring() -> dict[str, str]:
    """Return the environment for a keyring's process: ours, less what holds our secrets and what makes git talk."""
    return {
        name: value
        for name, value in os.environ.items()
        if name not in SECRET_VARIABLES and not name.startswith(_TRACE_PREFIX)
    }


def for_git() -> dict[str, str]:
    """Return the environment for git, which uses no network and no keyring here."""
    return {
        name: value
        for name, value in for_keyring().items()
        if not name.lower().endswith(_PROXY_SUFFIX) and not name.startswith(_KEYRING_PREFIX)
    }
