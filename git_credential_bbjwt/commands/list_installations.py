"""List the installations in the order they are asked, and where each one's secret is.

Those of --installation, BBJWT_INSTALLATION and systemd come first, then the registered ones, the system's last.

Example:
  git-credential-bbjwt list --json
"""

import argparse
import contextlib
import json
import os
from itertools import chain

from git_credential_bbjwt.commands.command_line import with_broker
from git_credential_bbjwt.core.options import HelperOptions
from git_credential_bbjwt.core.output import note, one_line
from git_credential_bbjwt.git.run import GitError
from git_credential_bbjwt.installations.asked import Asked
from git_credential_bbjwt.installations.catalogue import Catalogue
from git_credential_bbjwt.installations.installation import CLOUD_BASE_URL, Installation
from git_credential_bbjwt.installations.sources import read_sources
from git_credential_bbjwt.system.places import site_config_folder


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("--json", action="store_true", help="print a JSON array for scripts")


def execute(options: HelperOptions, arguments: argparse.Namespace) -> int:
    """Print them. Raises InstallationError, after printing the others, for a source that is broken."""
    with contextlib.suppress(GitError):  # Without git there is no broker in its configuration either.
        options = with_broker(options, CLOUD_BASE_URL)
    catalogue = Catalogue(read_sources(options))
    show = _json if arguments.json else _plain
    shown = show(catalogue)
    problems = catalogue.problems()
    if problems:
        raise problems[0]
    if not shown:
        note("no installations. Add one: git-credential-bbjwt register FILE")
    return 0


def _plain(catalogue: Catalogue) -> int:
    """Print a line each, as they are read; return how many."""
    count = 0
    for one in catalogue:
        print("\t".join(map(one_line, _columns(one))))
        count += 1
    for other in catalogue.to_ask():
        print(f"any workspace\t-\t{', '.join(f'https://{host}' for host in other.hosts)}\t{other.where} is asked")
        count += 1
    return count


def _json(catalogue: Catalogue) -> int:
    """Print a JSON array, as they are read; return how many."""
    print("[", end="")
    count = 0
    for fields in chain(map(_fields, catalogue), map(_asked_fields, catalogue.to_ask())):
        print(",\n" if count else "\n", json.dumps(fields, indent=2), sep="", end="")
        count += 1
    print("\n]" if count else "]")
    return count


def _asked_fields(one: Asked) -> dict[str, object]:
    return {
        "kind": None,
        "after_connect": False,
        "workspaces": [],
        "app": None,
        "client_key": None,
        "base_url": f"https://{one.hosts[0]}",
        "base_api_url": None,
        "secret": one.kind,
        "registry": None,
        "source": one.where,
    }


def _registry(one: Installation) -> str | None:
    """``user`` or ``system`` for a registered installation, None for an injected one."""
    if not one.secret_place.is_registered:
        return None
    return "system" if os.path.dirname(one.where) == site_config_folder() else "user"


def _columns(one: Installation) -> tuple[str, ...]:
    place = {"user": "", "system": ", system registry", None: f", {one.where}"}[_registry(one)]
    return (
        ", ".join(one.workspaces) or "any workspace",
        one.app_key or "-",
        one.base_url,
        f"secret {one.secret_place.described}{place}",
    )


def _fields(one: Installation) -> dict[str, object]:
    return {
        "kind": one.kind.value,
        "after_connect": one.after_connect,
        "workspaces": list(one.workspaces),
        "app": one.app_key,
        "client_key": one.client_key or None,
        "base_url": one.base_url,
        "base_api_url": one.base_api_url,
        "secret": one.secret_place.value,
        "registry": _registry(one),
        "source": one.where,
    }
