"""List the registered installations, and where each one's secret is.

Example:
  git-credential-bbjwt list --json
"""

import argparse
import json

from git_credential_bbjwt import diagnostics
from git_credential_bbjwt.installations import Installation
from git_credential_bbjwt.options import HelperOptions
from git_credential_bbjwt.registry import Registry


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("--json", action="store_true", help="print a JSON array for scripts")


def run(options: HelperOptions, arguments: argparse.Namespace) -> int:  # noqa: ARG001  # every command's shape
    """Print the user's registry, then the system's. Raises InstallationError for a broken one."""
    registered = [(system, one) for system in (False, True) for one in Registry(system=system).read()]
    if arguments.json:
        print(json.dumps([_fields(one, system) for system, one in registered], indent=2))
        return 0
    if not registered:
        diagnostics.note("no installation is registered: git-credential-bbjwt register FILE")
    for system, one in registered:
        place = f"secret {one.secret_described}" + (", system registry" if system else "")
        columns = (", ".join(one.workspaces), one.app_key, one.base_url, place)
        print("\t".join(map(diagnostics.one_line, columns)))
    return 0


def _fields(one: Installation, system: bool) -> dict[str, object]:
    return {
        "workspaces": list(one.workspaces),
        "app": one.app_key,
        "client_key": one.client_key,
        "base_url": one.base_url,
        "base_api_url": one.base_api_url,
        "secret": one.secret_place,
        "registry": "system" if system else "user",
    }
