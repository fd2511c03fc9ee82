"""Print a signed JWT, to hand to a machine that must not hold the secret.

The other machine uses it as BBJWT_JWT or BBJWT_JWT_FILE until it expires.
Until then it gives tokens for any repository of the workspace, with any scope
of the app, to anyone who has it, so keep its life short.

Example:
  git-credential-bbjwt jwt acme --expires 600
"""

import argparse
import time

from git_credential_bbjwt.bitbucket import assertion
from git_credential_bbjwt.commands.command_line import slug
from git_credential_bbjwt.core.failures import InstallationError, UsageError
from git_credential_bbjwt.core.files import APP_NAME
from git_credential_bbjwt.core.options import HelperOptions
from git_credential_bbjwt.core.sources import read_sources
from git_credential_bbjwt.installations.catalogue import Catalogue
from git_credential_bbjwt.secret_stores.secret_store import shared_secret_of

#: Longest life of a JWT that is handed on, in seconds.
LONGEST = 3600


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("workspace", type=slug, metavar="WORKSPACE", help="the workspace's slug")
    parser.add_argument(
        "--expires",
        type=int,
        default=assertion.LIFETIME,
        metavar="SECONDS",
        help=f"how long it is valid (default: {assertion.LIFETIME}, at most {LONGEST})",
    )


def execute(options: HelperOptions, arguments: argparse.Namespace) -> int:
    """Print it. Raises UsageError, InstallationError, SecretError."""
    if not 0 < arguments.expires <= LONGEST:
        raise UsageError(
            f"--expires needs a number of seconds from 1 to {LONGEST}", f"{APP_NAME} jwt WORKSPACE --expires 600"
        )
    catalogue = Catalogue(read_sources(options))
    one = catalogue.choose_for_workspace(arguments.workspace, options.app)
    if one is None:
        for problem in catalogue.problems():
            raise problem
        raise InstallationError("no installation serves this workspace", f"{APP_NAME} list shows the registered ones")
    if one.is_consumer:
        raise UsageError(
            "an OAuth consumer signs no JWT",
            f"hand on a token: {APP_NAME} token URL; or let the other machine ask a broker (--broker)",
        )
    if one.jwt:
        raise UsageError(
            "this machine has no secret: it uses a JWT signed elsewhere, which is not handed on",
            "run it on the machine that has the secret",
        )
    qsh = assertion.query_string_hash("POST", assertion.TOKEN_PATH)
    secret, now = shared_secret_of(one)(), int(time.time())
    print(assertion.sign(secret, one.app_key, one.client_key, qsh, issued_at=now, lifetime=arguments.expires))
    return 0
