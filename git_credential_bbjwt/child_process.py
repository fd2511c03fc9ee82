"""Child processes of ours: no secret in their environment or arguments, and an end within the call's time."""

import os

from git_credential_bbjwt.sources import SECRET_VARIABLES

# Git's trace variables would make a child write into our output or the user's trace file.
_TRACE_PREFIX = "GIT_TRACE"

_PROXY_SUFFIX = "_proxy"


def environment(*, proxies: bool) -> dict[str, str]:
    """Return the environment for a child: ours, less what holds secrets and what makes git talk.

    ``proxies`` keeps the proxy variables, whose URLs may hold a password: for a child that may use the network.
    """
    return {
        name: value
        for name, value in os.environ.items()
        if name not in SECRET_VARIABLES
        and not name.startswith(_TRACE_PREFIX)
        and (proxies or not name.lower().endswith(_PROXY_SUFFIX))
    }
