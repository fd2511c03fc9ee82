"""Store, read and remove shared secrets: in the keyring, or in a file if the user chose that."""

import os
import stat
from collections.abc import Callable, Iterable
from contextlib import closing
from functools import cache
from shlex import quote

from git_credential_bbjwt.core.digest import digest
from git_credential_bbjwt.core.failures import HEADLESS_HINT, WHOLE_PAYLOAD, InstallationError, SecretError
from git_credential_bbjwt.core.files import APP_NAME
from git_credential_bbjwt.core.output import hide, warning
from git_credential_bbjwt.core.remedies import look_at, reason_and_remedy
from git_credential_bbjwt.installations.installation import Installation, SecretPlace
from git_credential_bbjwt.system.private_folder import PrivateFolder, remove_if_empty

# The folder of the files that ``register --insecure-storage`` makes, below the configuration folder; its mode is 0700.
_FOLDER = "shared-secrets"

_HEX = frozenset("0123456789abcdef")


def _place_of(installation: Installation) -> tuple[str, str]:
    """Return the folder and the name of the installation's secret file, whose mode is 0600."""
    return f"{os.path.dirname(installation.where)}/{_FOLDER}", digest(installation.keyring_user)


def _read_file(installation: Installation) -> str:
    """Return the secret in the installation's file. Raises SecretError if it is missing or others could read it."""
    folder_path, name = _place_of(installation)
    path = f"{folder_path}/{name}"
    again = f"register again: {APP_NAME} register --insecure-storage FILE"
    try:
        found = os.stat(path)
        others_can = found.st_mode & 0o077
        if stat.S_ISREG(found.st_mode) and (others_can or not found.st_mode & 0o400):
            why = "others can read it" if others_can else "its mode lets nobody read it"
            raise SecretError(f"cannot use the shared secret in {path}: {why}", f"run: chmod 600 {quote(path)}")
        with closing(PrivateFolder(folder_path, create=False)) as folder:
            data = folder.read(name)
    except OSError as problem:
        why, remedy = reason_and_remedy(problem, again)
        raise SecretError(f"cannot read the shared secret in {path}: {why}", remedy) from problem
    if not data:
        why = "it is not a file of this user's" if data is None else "it is empty"
        raise SecretError(f"cannot use the shared secret in {path}: {why}", f"run: rm -r {quote(path)}; then {again}")
    secret = data.decode("utf-8", "replace")
    hide(secret)
    return secret


def _remove_files(path: str, unwanted: Callable[[PrivateFolder], list[str]]) -> None:
    """Remove files of secrets, and their folder if it is then empty. Raises SecretError."""
    try:
        with closing(PrivateFolder(path, create=False)) as folder:
            for name in unwanted(folder):
                folder.remove(name)
    except FileNotFoundError:
        return
    except OSError as problem:
        why, remedy = reason_and_remedy(problem, look_at(path))
        raise SecretError(f"cannot remove secrets from {path}: {why}", remedy) from problem
    for empty in (path, os.path.dirname(path)):
        remove_if_empty(empty)


def remove_other_files(config_folder: str, keyring_users: Iterable[str]) -> None:
    """Remove all files but those of ``keyring_users``, because killed processes left them. Raises SecretError."""
    used = set(map(digest, keyring_users))
    _remove_files(
        f"{config_folder}/{_FOLDER}",
        lambda folder: [name for name in folder.names() if _HEX.issuperset(name[:32]) and name[:32] not in used],
    )


def shared_secret_of(installation: Installation) -> Callable[[], str]:
    """Start to fetch the installation's shared secret, and return a function that returns the secret.

    Raises InstallationError if the installation has no secret. The function raises SecretError.
    """
    installation.check_keys()
    if installation.secret_place is SecretPlace.KEYRING:
        from git_credential_bbjwt.secret_stores.keyring_call import KeyringCall, secret_from

        call = KeyringCall("get", installation.keyring_user, backend=installation.keyring_backend)
        owner = f"the {installation.name} on {', '.join(installation.workspaces)}"
        return lambda: secret_from(call.reply(), owner)
    if installation.secret_place is SecretPlace.FILE:
        return cache(lambda: _read_file(installation))
    if not installation.shared_secret:
        hint = f"{WHOLE_PAYLOAD}; or set BBJWT_JWT"
        if installation.client_key.startswith("ari:"):
            hint = "add the app's secret (Develop apps, on Bitbucket) to the payload as its member sharedSecret"
        raise InstallationError(f"{installation.where}: sharedSecret is missing", hint)
    hide(installation.shared_secret)
    return lambda: installation.shared_secret


def write_secrets(secrets: list[tuple[Installation, str]]) -> None:
    """Write the secrets to files for ``register --insecure-storage``, and check that they can be read again.

    Raises SecretError.
    """
    files = {digest(one.keyring_user): secret.encode() for one, secret in secrets}
    path, _ = _place_of(secrets[0][0])  # All are in the same registry.
    try:
        with closing(PrivateFolder(path, create=True)) as folder:
            folder.write_many(files, durable=True)
    except OSError as problem:
        why, remedy = reason_and_remedy(problem, look_at(path))
        raise SecretError(f"cannot write {path}: {why}", remedy) from problem
    for one, secret in secrets:
        _check_same(_read_file(one), secret)


def check_keyring() -> None:
    """Raise SecretError if there is no usable keyring. A locked one is usable: `store_in_keyring` has it unlocked."""
    from git_credential_bbjwt.secret_stores.keyring_call import KeyringCall, keyring_error
    from git_credential_bbjwt.secret_stores.keyring_protocol import Outcome

    reply = KeyringCall("describe", "").reply()
    if reply.outcome is Outcome.UNUSABLE:
        raise keyring_error(reply)


def store_in_keyring(installation: Installation, secret: str) -> str:
    """Store ``secret`` in the keyring, check that it can be read again, and return the name of the backend.

    A person at a terminal may be asked to unlock the keyring. Raises SecretError.
    """
    from git_credential_bbjwt.secret_stores.keyring_call import KeyringCall, keyring_error, secret_from
    from git_credential_bbjwt.secret_stores.keyring_protocol import Outcome

    prompt = os.isatty(0)
    stored = KeyringCall("set", installation.keyring_user, secret, prompt=prompt).reply()
    if not stored.is_ok:
        raise keyring_error(stored)
    reply = KeyringCall("get", installation.keyring_user, backend=stored.backend, prompt=prompt).reply()
    if reply.outcome is Outcome.ABSENT:
        raise SecretError(f"the keyring backend {stored.backend} stores nothing", HEADLESS_HINT)
    _check_same(secret_from(reply, f"the {installation.name}"), secret)
    return reply.backend


def _check_same(found: str, secret: str) -> None:
    if found != secret:
        raise SecretError("the stored shared secret differs from the original", HEADLESS_HINT)


def remove_secret(installation: Installation, *, only_there: bool = False) -> None:
    """Remove the installation's secret from its store.

    ``only_there`` leaves it in the keyring's other backends, because the secret was stored again in one of them.
    Raises SecretError if the secret cannot be removed. It is not an error if the secret does not exist.
    """
    if installation.secret_place is SecretPlace.FILE:
        path, name = _place_of(installation)
        _remove_files(path, lambda _: [name])
        return
    from git_credential_bbjwt.secret_stores.keyring_call import KeyringCall, keyring_error
    from git_credential_bbjwt.secret_stores.keyring_protocol import Outcome

    reply = KeyringCall(
        "delete",
        installation.keyring_user,
        backend=installation.keyring_backend,
        only_there=only_there,
        prompt=os.isatty(0),
    ).reply()
    if reply.outcome not in (Outcome.OK, Outcome.ABSENT):
        raise keyring_error(reply)


def remove_replaced_secret(old: Installation, new: list[Installation]) -> None:
    """Remove the secret of an ``old`` registration, unless the secret of a ``new`` one has overwritten it.

    If the secret cannot be removed, print a warning.
    """
    same_name = [one for one in new if (one.keyring_user, one.secret_place) == (old.keyring_user, old.secret_place)]
    if any(one.keyring_backend == old.keyring_backend and one.where == old.where for one in same_name):
        return
    try:
        remove_secret(old, only_there=bool(same_name))
    except SecretError as problem:
        warning(f"the replaced secret of the {old.name} is still stored: {problem.what}")
