"""The https broker for WSGI servers: ``gunicorn … git_credential_bbjwt.serving.wsgi:application``.

The configuration is the file that BBJWT_BROKER_CONFIG names. README.md in this folder is the operators' page.
"""

import os
import sys

from git_credential_bbjwt.core.failures import CredentialError, UsageError
from git_credential_bbjwt.core.output import error
from git_credential_bbjwt.system import core_dumps

# gunicorn's own status for a worker that cannot start: the server ends with it, and starts no other.
_CANNOT_START = 3

# The server's environment is the operator's, except for what is about asking other brokers.
_NOT_USED = ("BBJWT_BROKER", "BBJWT_JWT", "BBJWT_JWT_FILE")


def _made() -> "Application":
    for name in _NOT_USED:
        os.environ.pop(name, None)
    os.chdir("/")
    os.umask(0o077)
    core_dumps.forbid()
    path = os.environ.get("BBJWT_BROKER_CONFIG", "")
    try:
        if sys.platform == "win32":
            raise UsageError("the https broker does not run on Windows", "run it on Linux")
        if not os.path.isabs(path):
            raise UsageError(
                "BBJWT_BROKER_CONFIG does not name the broker's configuration",
                "set it to the absolute path of a TOML file",
            )
        return Application(path)
    except CredentialError as problem:
        error(problem.what, problem.hint)
        raise SystemExit(_CANNOT_START) from None


# With what verifies signatures, which nothing may keep out of this process.
import cryptography.exceptions  # noqa: E402, F401
import jwt  # noqa: E402, F401

from git_credential_bbjwt.serving.application import Application  # noqa: E402

application = _made()
