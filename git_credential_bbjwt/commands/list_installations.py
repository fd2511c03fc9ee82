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
from itertools import chain, groupby

from git_credential_bbjwt.commands.command_line import with_broker
from git_credential_bbjwt.core.options import HelperOptions
from git_credential_bbjwt.core.output import note, one_line
from git_credential_bbjwt.git.run import GitError
from git_credential_bbjwt.installations.asked import Asked
from git_credential_bbjwt.installations.catalogue import Catalogue
from git_credential_bbjwt.installations.installation import CLOUD_BASE_URL, Installation
from git_credential_bbjwt.installations.sources import read_sources
from git_credential_bbjwt.system.places import site_config_folder

_HEADER = ("WORKSPACE", "APP", "BASE URL", "SECRET")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("--json", action="store_true", help="print a JSON array for scripts")


def execute(options: HelperOptions, arguments: argparse.Namespace) -> int:
    """Print them. Raises InstallationError, after printing the others, for a source that is broken."""
    with contextlib.suppress(GitError):  # Without git there is no broker in its configuration either.
        options = with_broker(options, CLOUD_BASE_URL)
    catalogue = Catalogue(read_sources(options))
    if arguments.json:
        count = _print_json(catalogue)
    else:
        count = (_print_table if os.isatty(1) else _print_lines)(_rows(catalogue))
    problems = catalogue.problems()
    if problems:
        raise problems[0]
    if not count:
        note("no installations. Add one: git-credential-bbjwt register FILE")
    return 0


def _rows(catalogue: Catalogue) -> Iterator[tuple[str, ...]]:
    """Yield the columns of each installation, as they are read."""
    for _, group in groupby(catalogue, key=lambda one: (one.where, one.host, one.workspaces)):
        of_workspace = list(group)
        for one in of_workspace:
            yield tuple(map(one_line, _columns(one, of_workspace)))
    for asked in catalogue.to_ask():
        hosts = ", ".join(f"https://{host}" for host in asked.hosts)
        yield "any workspace", "-", one_line(hosts), f"{asked.where} is asked"


def _print_lines(rows: Iterator[tuple[str, ...]]) -> int:
    """Print a line each; return how many."""
    count = 0
    for row in rows:
        print("\t".join(row))
        count += 1
    return count


def _print_table(rows: Iterator[tuple[str, ...]]) -> int:
    """Print all with a header, aligned; return how many."""
    table = list(rows)
    if table:
        widths = [max(map(len, column)) for column in zip(_HEADER, *table, strict=True)]
        for row in (_HEADER, *table):
            print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    return len(table)


def _print_json(catalogue: Catalogue) -> int:
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
    """Return ``user`` or ``system`` for a registered installation, None for an injected one."""
    if not one.secret_place.is_registered:
        return None
    return "system" if os.path.dirname(one.where) == site_config_folder() else "user"


def _columns(one: Installation, of_workspace: list[Installation]) -> tuple[str, ...]:
    place = {"user": "", "system": ", system registry", None: f", {one.where}"}[_registry(one)]
    return (
        ", ".join(one.workspaces) or "any workspace",
        one.app_key or "-",
        one.base_url,
        f"secret {one.secret_place.described}{place}{_of_consumer(one, of_workspace)}",
    )


def _of_consumer(one: Installation, of_workspace: list[Installation]) -> str:
    if not one.is_consumer:
        return ""
    newest = next(other for other in of_workspace if other.is_consumer and other.after_connect == one.after_connect)
    if newest != one:
        return f"; OAuth consumer, used with --app alone: {newest.app_key} was registered later"
    when = ", used when Connect has ended" if one.after_connect else ""
    return f"; OAuth consumer{when}: opens every repository of the workspace"


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
