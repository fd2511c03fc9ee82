"""Entries of the registry: an installation without its secret, as a line of JSON."""

import json
from shlex import quote

from git_credential_bbjwt.core.failures import InstallationError
from git_credential_bbjwt.core.repository import is_uuid
from git_credential_bbjwt.installations.installation import Installation, Kind, SecretPlace
from git_credential_bbjwt.installations.payload import checked_base, text_of


def parse_entries(data: bytes, workspace: str, where: str) -> list[Installation]:
    """Return the installations in the registry's file for a ``workspace``, the oldest registration first.

    ``where`` names the registry in errors. Raises InstallationError.
    """
    return [_parse_entry(line, workspace, where) for line in data.splitlines() if line.strip()]


def _parse_entry(line: bytes, workspace: str, where: str) -> Installation:
    try:
        entry = json.loads(line)
        if not isinstance(entry, dict):
            raise ValueError
        place, kind = SecretPlace(entry.get("secretPlace")), Kind(entry.get("kind"))
    except (ValueError, RecursionError) as broken:
        hint = f"remove the entry, and register again: rm {quote(where)}/*/{workspace}"
        raise InstallationError(f"{where}: the entry of {workspace} is broken", hint) from broken
    uuid = text_of(entry, "workspaceUuid", where)
    return Installation(
        app_key=text_of(entry, "key", where),
        client_key=text_of(entry, "clientKey", where),
        base_url=checked_base(text_of(entry, "baseUrl", where), "baseUrl", where),
        base_api_url=checked_base(text_of(entry, "baseApiUrl", where), "baseApiUrl", where),
        workspaces=(workspace,),
        workspace_uuid=uuid if is_uuid(uuid) else "",
        secret_place=place,
        registration=text_of(entry, "registration", where),
        where=where,
        keyring_backend=text_of(entry, "keyringBackend", where),
        kind=kind,
        after_connect=entry.get("afterConnect") is True,
    )


def entry_of(installation: Installation) -> bytes:
    """Return the line of ``installation`` for the file of its workspace."""
    entry = {
        "kind": installation.kind.value,
        "key": installation.app_key,
        "clientKey": installation.client_key,
        "baseUrl": installation.base_url,
        "baseApiUrl": installation.base_api_url,
        "workspaceUuid": installation.workspace_uuid,
        "secretPlace": installation.secret_place.value,
        "registration": installation.registration,
        "keyringBackend": installation.keyring_backend,
        "afterConnect": installation.after_connect,
    }
    return json.dumps(entry, ensure_ascii=False).encode() + b"\n"
