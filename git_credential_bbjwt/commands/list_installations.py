"""List the installations in the order they are asked, and where each one's secret is.

Those of --installation, BBJWT_INSTALLATION and systemd come first, then the registered ones, the system's last.

Example:
  git-credential-bbjwt list --json
"""

import argparse
import json

from git_credential_bbjwt import diagnostics
from git_credential_bbjwt.installations.payload import Catalogue, Installation
from git_credential_bbjwt.installations.registry import Registry
from git_credential_bbjwt.installations.sources import read_sources
from git_credential_bbjwt.options import HelperOptions


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("--json", action="store_true", help="print a JSON array for scripts")


def run(options: HelperOptions, arguments: argparse.Namespace) -> int:
    """Print them. Raises InstallationError, after printing the others, for a source that is broken."""
    catalogue = Catalogue(read_sources(options))
    found = list(catalogue)
    if arguments.json:
        print(json.dumps([_fields(one) for one in found], indent=2))
    else:
        for one in found:
            print("\t".join(map(diagnostics.one_line, _columns(one))))
    problems = catalogue.problems()
    if problems:
        raise problems[0]
    if not found:
        diagnostics.note("there is no installation: git-credential-bbjwt register FILE")
    return 0


def _registry(one: Installation) -> str | None:
    """``user`` or ``system`` for a registered installation, None for an injected one."""
    if not one.is_registered:
        return None
    return "system" if one.where == Registry(system=True).path else "user"


def _columns(one: Installation) -> tuple[str, ...]:
    place = {"user": "", "system": ", system registry", None: f", {one.where}"}[_registry(one)]
    return (
        ", ".join(one.workspaces) or "any workspace",
        one.app_key or "-",
        one.base_url,
        f"secret {one.secret_described}{place}",
    )


def _fields(one: Installation) -> dict[str, object]:
    return {
        "workspaces": list(one.workspaces),
        "app": one.app_key,
        "client_key": one.client_key,
        "base_url": one.base_url,
        "base_api_url": one.base_api_url,
        "secret": one.secret_place,
        "registry": _registry(one),
        "source": one.where,
    }
