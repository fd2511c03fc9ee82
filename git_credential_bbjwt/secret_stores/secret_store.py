"""Store, read and remove shared secrets: in the keyring, or in a file if the user chose that."""

import os
from collections.abc import Callable, Iterable

from git_credential_bbjwt.core.digest import digest
from git_credential_bbjwt.core.failures import HEADLESS_HINT, WHOLE_PAYLOAD, InstallationError, SecretError
from git_credential_bbjwt.core.output import hide, warning
from git_credential_bbjwt.core.private_folder import PrivateFolder, remove_if_empty
from git_credential_bbjwt.installations.installation import Installation, SecretPlace


class SecretFile:
    """The file that ``register --insecure-storage`` makes for one ``keyring_user``: 0600, in a folder of mode 0700."""

    _FOLDER = "shared-secrets"

    def __init__(self, config_folder: str, keyring_user: str) -> None:
        self.folder_path = f"{config_folder}/{self._FOLDER}"
        self.name = digest(keyring_user)

    def read(self) -> str:
        """Return the secret. Raises SecretError if it is missing or others could read it."""
        path = f"{self.folder_path}/{self.name}"
        hint = f"run chmod 600 {path} as its owner, or register again"
        try:
            if os.stat(path).st_mode & 0o077:
                raise SecretError(f"others can read the shared secret in {path}: it is not used", hint)
            folder = PrivateFolder(self.folder_path, create=False)
        except OSError as problem:
            raise SecretError(f"cannot read the shared secret in {path}: {problem.strerror}", hint) from problem
        try:
            data = folder.read(self.name)
        finally:
            folder.close()
        if not data:
            raise SecretError(f"the shared secret in {path} cannot be used", hint)
        secret = data.decode("utf-8", "replace")
        hide(secret)
        return secret

    @staticmethod
    def write_many(files: "dict[SecretFile, str]") -> None:
        """Write each secret to its file; all files are in the same folder. Raises OSError."""
        (path,) = {file.folder_path for file in files}
        folder = PrivateFolder(path, create=True)
        try:
            folder.write_many({file.name: secret.encode() for file, secret in files.items()}, durable=True)
        finally:
            folder.close()

    def remove(self) -> None:
        """Remove the secret, and the folder if that was the last one in it. Raises SecretError."""
        _remove_files(self.folder_path, lambda _: [self.name])

    @classmethod
    def remove_others(cls, config_folder: str, keyring_users: Iterable[str]) -> None:
        """Remove all secrets except those of ``keyring_users``; killed processes left them. Raises SecretError."""
        used = set(map(digest, keyring_users))
        _remove_files(
            f"{config_folder}/{cls._FOLDER}",
            lambda folder: [name for name in folder.names() if _HEX.issuperset(name[:32]) and name[:32] not in used],
        )


_HEX = frozenset("0123456789abcdef")


def _remove_files(path: str, unwanted: Callable[[PrivateFolder], list[str]]) -> None:
    try:
        folder = PrivateFolder(path, create=False)
        try:
            for name in unwanted(folder):
                folder.remove(name)
        finally:
            folder.close()
    except FileNotFoundError:
        return
    except OSError as problem:
        raise SecretError(f"cannot remove secrets from {path}: {problem.strerror}", "check who owns it") from problem
    for empty in (path, os.path.dirname(path)):
        remove_if_empty(empty)


def shared_secret_of(installation: Installation) -> Callable[[], str]:
    """Start to fetch the installation's shared secret, and return a function that returns the secret.

    Raises InstallationError if the installation has no secret. The function raises SecretError.
    """
    for field, value in (("key", installation.app_key), ("clientKey", installation.keyring_user)):
        if not value:
            raise InstallationError(f"{installation.where}: {field} is missing")
    if installation.secret_place is SecretPlace.KEYRING:
        from git_credential_bbjwt.secret_stores.keyring_call import KeyringCall, secret_from

        call = KeyringCall("get", installation.keyring_user, backend=installation.keyring_backend)
        owner = f"the {installation.name} on {', '.join(installation.workspaces)}"
        return _Once(lambda: secret_from(call.reply(), owner))
    if installation.secret_place is SecretPlace.FILE:
        config_folder = os.path.dirname(installation.where)
        return _Once(SecretFile(config_folder, installation.keyring_user).read)
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
    files = {SecretFile(os.path.dirname(one.where), one.keyring_user): secret for one, secret in secrets}
    try:
        SecretFile.write_many(files)
    except OSError as problem:
        path = next(iter(files)).folder_path
        raise SecretError(
            f"cannot write {path}: {problem.strerror or problem}", "check who owns the folder"
        ) from problem
    for file, secret in files.items():
        _check_same(file.read(), secret)


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
        SecretFile(os.path.dirname(installation.where), installation.keyring_user).remove()
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


class _Once:
    """A function that calls ``fetch`` once and remembers the result."""

    def __init__(self, fetch: Callable[[], str]) -> None:
        self._fetch = fetch
        self._value: str | None = None

    def __call__(self) -> str:
        if self._value is None:
            self._value = self._fetch()
        return self._value
