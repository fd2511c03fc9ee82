"""List the installations in their order, and where the secret of each is.

Those of --installation, BBJWT_INSTALLATION and systemd come first, then the
registered ones by workspace, the system's last. A terminal gets a table, a
pipe one line per installation with tabs between the columns.

Example:
  git-credential-bbjwt list --json
"""

import argparse
import contextlib
import json
import os
from collections.abc import Iterator
from itertools import chain

from git_credential_bbjwt.commands.command_line import with_broker
from git_credential_bbjwt.core.files import site_config_folder
from git_credential_bbjwt.core.on_demand import OnDemandSource
from git_credential_bbjwt.core.options import HelperOptions
from git_credential_bbjwt.core.output import note, one_line
from git_credential_bbjwt.core.sources import read_sources
from git_credential_bbjwt.git.run import GitError
from git_credential_bbjwt.installations.catalogue import Catalogue, with_replacements
from git_credential_bbjwt.installations.installation import CLOUD_BASE_URL, Installation

_HEADER = ("WORKSPACE", "APP", "BASE URL", "SECRET")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("--json", action="store_true", help="print a JSON array for scripts")


def execute(options: HelperOptions, arguments: argparse.Namespace) -> int:
    """Print them. Raises InstallationError, after printing the others, for a source that is broken."""
    with contextlib.suppress(GitError):  # Without git there is no broker in its configuration either.
        options = with_broker(options, CLOUD_BASE_URL)
    catalogue = Catalogue(read_sources(options))
    print_all = _print_json if arguments.json else _print_table if os.isatty(1) else _print_lines
    count = print_all(catalogue)
    for problem in catalogue.problems():
        raise problem
    if not count:
        note("no installations. Add one: git-credential-bbjwt register FILE")
    return 0


def _rows(catalogue: Catalogue) -> Iterator[tuple[str, ...]]:
    """Yield the columns of each installation, as they are read."""
    for one, used in with_replacements(catalogue):
        yield tuple(map(one_line, _columns(one, used)))
    for asked in catalogue.to_ask():
        hosts = ", ".join(f"https://{host}" for host in asked.hosts)
        yield "any workspace", "-", one_line(hosts), f"{asked.where} is asked"


def _print_lines(catalogue: Catalogue) -> int:
    """Print a line each; return how many."""
    count = 0
    for row in _rows(catalogue):
        print("\t".join(row))
        count += 1
    return count


def _print_table(catalogue: Catalogue) -> int:
    """Print all with a header, aligned; return how many."""
    rows = list(_rows(catalogue))
    if rows:
        widths = [max(map(len, column)) for column in zip(_HEADER, *rows, strict=True)]
        for row in (_HEADER, *rows):
            print("  ".join(map(str.ljust, row, widths)).rstrip())
    return len(rows)


def _print_json(catalogue: Catalogue) -> int:
    """Print a JSON array, as they are read; return how many."""
    print("[", end="")
    count = 0
    for fields in chain(map(_fields, catalogue), map(_fields_on_demand, catalogue.to_ask())):
        print(",\n" if count else "\n", json.dumps(fields, indent=2), sep="", end="")
        count += 1
    print("\n]" if count else "]")
    return count


def _registry(one: Installation) -> str | None:
    """Return ``user`` or ``system`` for a registered installation, None for an injected one."""
    if not one.secret_place.is_registered:
        return None
    return "system" if os.path.dirname(one.where) == site_config_folder() else "user"


def _columns(one: Installation, used: Installation) -> tuple[str, ...]:
    """Return the columns of ``one``, in whose place another consumer may be ``used``."""
    secret = f"secret {one.secret_place.described}"
    secret += {"user": "", "system": ", system registry", None: f", {one.where}"}[_registry(one)]
    if used is not one:
        secret += f"; OAuth consumer, used with --app alone: {used.app_key} was registered later"
    elif one.is_consumer:
        when = ", used when Connect has ended" if one.after_connect else ""
        secret += f"; OAuth consumer{when}: opens every repository of the workspace"
    return ", ".join(one.workspaces) or "any workspace", one.app_key or "-", one.base_url, secret


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


def _fields_on_demand(one: OnDemandSource) -> dict[str, object]:
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
