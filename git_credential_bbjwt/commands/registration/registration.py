"""Registering what payloads describe: checked first, then stored, each installation whole or not at all."""

import contextlib
import os
from typing import NamedTuple

from git_credential_bbjwt.commands.registration import given, trial
from git_credential_bbjwt.commands.registration.progress import Progress
from git_credential_bbjwt.core.failures import CredentialError, InstallationError, SecretError, UsageError
from git_credential_bbjwt.core.options import HelperOptions
from git_credential_bbjwt.core.output import error, hide, note
from git_credential_bbjwt.installations.installation import Installation, SecretPlace
from git_credential_bbjwt.installations.payload import parse_payload
from git_credential_bbjwt.installations.registry_changes import BATCH, RegistryFolder
from git_credential_bbjwt.secret_stores import secret_store
from git_credential_bbjwt.tokens.tidying import forget_workspaces


class Wanted(NamedTuple):
    """One installation to register, for one workspace: with its secret and its payload's ``position``, from 1."""

    position: int
    installation: Installation
    secret: str


class Given(NamedTuple):
    """The rest of the command line, beside the payloads. ``secret`` is that of --secret-file, or empty."""

    workspaces: list[str]
    secret: str
    after_connect: bool
    options: HelperOptions


class Registration:
    """One call of `register`, into the registry of the user or of the system."""

    def __init__(self, registry: RegistryFolder, *, insecure: bool, also: Given) -> None:
        self.registry = registry
        self._place = SecretPlace.FILE if insecure else SecretPlace.KEYRING
        self._also = also
        self._asked_secret = also.secret

    def check(self, payloads: list[bytes], where: str) -> list[Wanted]:
        """Return what the payloads describe, if all of them are right. Raises InstallationError, UsageError."""
        wanted, wrong = [], []
        progress = Progress("checked", len(payloads))
        for position, data in enumerate(payloads, 1):
            try:
                for one in parse_payload(data, where):
                    wanted += self._checked(position, one, where)
            except InstallationError as problem:
                if len(payloads) == 1:
                    raise
                wrong.append(f"payload {position}{given.app_of(data)}: {problem.what}")
            progress.advance()
        progress.end()
        for line in wrong:
            error(line)
        if wrong:
            raise InstallationError(
                f"{len(wrong)} of {len(payloads)} payloads cannot be used: none of them is registered",
                "correct or leave out those named above",
            )
        consumers = [one for one in wanted if one.installation.is_consumer]
        if self._also.after_connect and not consumers:
            raise UsageError("--after-connect marks an OAuth consumer, and none is given")
        if self._also.secret and len(consumers) == len(wanted):
            raise UsageError("--secret-file is for the payloads of Connect apps, and none is given")
        return wanted

    def _checked(self, position: int, one: Installation, where: str) -> list[Wanted]:
        workspaces = self._also.workspaces
        if one.is_consumer:
            if workspaces and workspaces != list(one.workspaces):
                raise InstallationError(
                    f"{where}: the OAuth consumer belongs to another workspace than --workspace names",
                    "leave out --workspace",
                )
            one = one._replace(after_connect=one.after_connect or self._also.after_connect)
        else:
            one = one._replace(shared_secret=self._secret_of(one, where))
        hide(one.shared_secret)
        for field, value in (("key", one.app_key), ("clientKey", one.keyring_user)):
            if not value:
                raise InstallationError(f"{where}: {field} is missing")
        slugs = workspaces or list(one.workspaces) or self._known_workspaces(one)
        if not slugs:
            slugs = [trial.ask_slug(one, where, self._also.options)]
        new = one._replace(
            secret_place=self._place, registration=os.urandom(8).hex(), where=self.registry.path, shared_secret=""
        )
        return [Wanted(position, new._replace(workspaces=(slug,)), one.shared_secret) for slug in dict.fromkeys(slugs)]

    def _secret_of(self, app: Installation, where: str) -> str:
        """Return the secret of --secret-file, of the payload, or typed at a terminal, once for all payloads."""
        secret = self._also.secret or app.shared_secret
        if secret:
            return secret
        if not app.client_key.startswith("ari:"):
            raise InstallationError(f"{where}: sharedSecret is missing")
        if not self._asked_secret:
            if not os.isatty(0):
                raise InstallationError(
                    f"{where}: sharedSecret is missing, as in payloads of apps that are registered under Develop apps",
                    "copy the app's secret from there to a file of mode 0600, and add: --secret-file FILE",
                )
            self._asked_secret = given.ask_secret(f"Secret of the app {app.app_key} (not shown): ")
        return self._asked_secret

    @property
    def uses_secret_of_app(self) -> bool:
        """Return whether the secret of a registered app was given beside the payloads."""
        return self._asked_secret != ""

    def _known_workspaces(self, one: Installation) -> list[str]:
        """Return the slugs that an earlier registration gave a payload without one."""
        before = self.registry.of_workspace(one.workspace_uuid)
        return [slug for same in before if same.keyring_user == one.keyring_user for slug in same.workspaces]

    def replaced_by(self, wanted: list[Wanted]) -> list[Installation]:
        """Return the registered Connect apps that ``wanted`` would replace. Raises InstallationError."""
        return [
            old
            for new in (one.installation for one in wanted)
            for workspace in dict.fromkeys((*new.workspaces, new.workspace_uuid))
            for old in self.registry.of_workspace(workspace)
            if old.host == new.host and not new.is_consumer
            if (old.kind, old.app_key) == (new.kind, new.app_key) or old.keyring_user == new.keyring_user
        ]

    def store(self, wanted: list[Wanted]) -> list[Installation]:
        """Store the secrets, then register what they belong to, each whole or not at all. Raises CredentialError."""
        with self.registry.changing() as change:
            new = self._store_secrets(wanted)
            try:
                replaced = change.put(new)
                change.commit()
            except (OSError, InstallationError):
                for one in new:  # Without an entry, nothing would name its secret.
                    if not any(old.secret_place is one.secret_place for old in change.stored(one)):
                        with contextlib.suppress(SecretError):
                            secret_store.remove_secret(one)
                raise
            for one in replaced:
                secret_store.remove_replaced_secret(one, change.same(one))
        forget_workspaces(key for one in new for key in one.keys)
        return new

    def _store_secrets(self, wanted: list[Wanted]) -> list[Installation]:
        if self._place is SecretPlace.FILE:
            secret_store.write_secrets([(one.installation, one.secret) for one in wanted])
            return [one.installation for one in wanted]
        return [
            one.installation._replace(keyring_backend=secret_store.store_in_keyring(one.installation, one.secret))
            for one in wanted
        ]

    def store_many(self, wanted: list[Wanted]) -> int:
        """Store all that can be; return the exit status."""
        failed = 0
        progress = Progress("registered", len(wanted))
        # The keyring may refuse one secret and take the next.
        size = BATCH if self._place is SecretPlace.FILE else 1
        for start in range(0, len(wanted), size):
            some = wanted[start : start + size]
            try:
                self.store(some)
            except CredentialError as problem:
                progress.end()
                for one in some:
                    error(f"payload {one.position} ({one.installation.name}): {problem.what}", problem.hint)
                failed += len(some)
            progress.advance(len(some))
        progress.end()
        done = f"registered {len(wanted) - failed} of {len(wanted)} installations"
        note(f"{done}; the secrets are {self._place.described}, the rest in {self.registry.path}")
        return 1 if failed else 0
