"""Register the installations of payloads: check all, then store each one whole or not at all."""

import contextlib
import os
from collections.abc import Sequence
from concurrent import futures
from dataclasses import dataclass
from typing import NamedTuple

from git_credential_bbjwt.commands.registration import payload_input
from git_credential_bbjwt.core.failures import (
    BudgetSpentError,
    ConnectionFailedError,
    CredentialError,
    InstallationError,
    RefusedError,
    SecretError,
    UsageError,
)
from git_credential_bbjwt.core.output import error, hide, note
from git_credential_bbjwt.installations.installation import Installation, SecretPlace
from git_credential_bbjwt.installations.payload import parse_payload
from git_credential_bbjwt.installations.registry_changes import BATCH, RegistryFolder
from git_credential_bbjwt.secret_stores import secret_store
from git_credential_bbjwt.system import terminal
from git_credential_bbjwt.system.budget import Budget
from git_credential_bbjwt.tokens.cache import TokenCache
from git_credential_bbjwt.tokens.tidying import forget_workspaces
from git_credential_bbjwt.vendors.connect import look_up_workspace
from git_credential_bbjwt.vendors.session import Session

#: The error and the remedy for a secret file without a Connect app.
NO_APP = "--secret-file is for the payloads of Connect apps, and none is given", "leave out --secret-file"

# Seconds that a trial may take before the new secret replaces the old one untried.
_PATIENCE = 10.0


class Wanted(NamedTuple):
    """One installation to register for one workspace, and its secret. ``position`` is its payload's number, from 1."""

    position: int
    installation: Installation
    secret: str


@dataclass
class Registration:
    """One call of `register`, into the ``registry`` of the user or of the system.

    ``secret_of_app`` is that of --secret-file, or empty. ``timeout`` is in seconds.
    """

    registry: RegistryFolder
    place: SecretPlace
    workspaces: list[str]
    secret_of_app: str
    after_connect: bool
    timeout: float
    _typed_secret: str = ""

    def check_places(self) -> None:
        """Before a person types a secret, check that it can be registered. Raises CredentialError."""
        if os.isatty(0):
            with self.registry.changing():
                pass
            if self.place is SecretPlace.KEYRING:
                secret_store.check_keyring()

    def check(self, payloads: list[bytes], where: str) -> list[Wanted]:
        """Return the installations of all payloads. Raises InstallationError if one cannot be used, and UsageError."""
        wanted, wrong = [], []
        for number in terminal.with_bar("checked", range(len(payloads))):
            try:
                for one in parse_payload(payloads[number], where):
                    wanted += self._checked(number + 1, one, where)
            except InstallationError as problem:
                if len(payloads) == 1:
                    raise
                wrong.append(f"payload {number + 1}{payload_input.app_of(payloads[number])}: {problem.what}")
        for line in wrong:
            error(line)
        if wrong:
            raise InstallationError(
                f"{len(wrong)} of {len(payloads)} payloads cannot be used: none of them is registered",
                "correct or leave out those named above",
            )
        consumers = [one for one in wanted if one.installation.is_consumer]
        if self.after_connect and not consumers:
            raise UsageError("--after-connect marks an OAuth consumer, and none is given", "leave out --after-connect")
        if self.secret_of_app and len(consumers) == len(wanted):
            raise UsageError(*NO_APP)
        if self.secret_of_app or self._typed_secret:
            note("the secret of an app that is registered under Develop apps opens every workspace that has the app")
        return wanted

    def _checked(self, position: int, one: Installation, where: str) -> list[Wanted]:
        if one.is_consumer:
            if self.workspaces and self.workspaces != list(one.workspaces):
                raise InstallationError(
                    f"{where}: the OAuth consumer belongs to another workspace than --workspace names",
                    "leave out --workspace",
                )
            one = one._replace(after_connect=one.after_connect or self.after_connect)
        else:
            one = one._replace(shared_secret=self._secret_of(one, where))
        hide(one.shared_secret)
        one.check_keys()
        slugs = self.workspaces or list(one.workspaces) or self._known_workspaces(one)
        if not slugs:
            slugs = [_ask_slug(one, where, self.timeout)]
        new = one._replace(
            secret_place=self.place, registration=os.urandom(8).hex(), where=self.registry.path, shared_secret=""
        )
        return [Wanted(position, new._replace(workspaces=(slug,)), one.shared_secret) for slug in dict.fromkeys(slugs)]

    def _secret_of(self, app: Installation, where: str) -> str:
        """Return the secret from --secret-file or the payload; otherwise a person types one secret for all payloads."""
        secret = self.secret_of_app or app.shared_secret
        if secret:
            return secret
        if not app.client_key.startswith("ari:"):
            raise InstallationError(f"{where}: sharedSecret is missing")
        if not self._typed_secret:
            if not os.isatty(0):
                raise InstallationError(
                    f"{where}: sharedSecret is missing, as in payloads of apps that are registered under Develop apps",
                    "copy the app's secret from there to a file of mode 0600, and add: --secret-file FILE",
                )
            self.check_places()
            self._typed_secret = payload_input.ask_secret(f"Secret of the app {app.app_key} (not shown): ")
        return self._typed_secret

    def _known_workspaces(self, one: Installation) -> list[str]:
        """Return the slugs from an earlier registration of the same app, for a payload without a slug."""
        before = self.registry.of_workspace(one.workspace_uuid)
        return [slug for same in before if same.keyring_user == one.keyring_user for slug in same.workspaces]

    def replaced_by(self, wanted: list[Wanted]) -> list[Installation]:
        """Return the registered Connect apps that ``wanted`` would replace. Raises InstallationError."""
        with self.registry.changing() as change:
            return [old for old in change.put([one.installation for one in wanted]) if not old.is_consumer]

    def store(self, wanted: Sequence[Wanted]) -> list[Installation]:
        """Store all in one change, and drop their workspaces' cached tokens. Raises CredentialError."""
        new = self._store(wanted)
        forget_workspaces(key for one in new for key in one.keys)
        return new

    def _store(self, wanted: Sequence[Wanted]) -> list[Installation]:
        """Store the secrets, then register their installations, each whole or not at all. Raises CredentialError."""
        with self.registry.changing() as change:
            new = self._store_secrets(wanted)
            try:
                replaced = change.put(new)
                change.commit()
            except (OSError, InstallationError):
                change.reset()
                for one in new:  # No entry names its secret, so nobody would find the secret later.
                    if not any(old.secret_place is one.secret_place for old in change.same(one)):
                        with contextlib.suppress(SecretError):
                            secret_store.remove_secret(one)
                raise
            for one in replaced:
                secret_store.remove_replaced_secret(one, change.same(one))
        return new

    def _store_secrets(self, wanted: Sequence[Wanted]) -> list[Installation]:
        if self.place is SecretPlace.FILE:
            secret_store.write_secrets([(one.installation, one.secret) for one in wanted])
            return [one.installation for one in wanted]
        return [
            one.installation._replace(keyring_backend=secret_store.store_in_keyring(one.installation, one.secret))
            for one in wanted
        ]

    def store_many(self, wanted: Sequence[Wanted]) -> int:
        """Store as many as possible; return the exit status."""
        stored: list[Installation] = []
        failed: list[tuple[Wanted, CredentialError]] = []
        # The keyring may refuse one secret and accept the next.
        size = BATCH if self.place is SecretPlace.FILE else 1
        for start in terminal.with_bar("registered", range(0, len(wanted), size)):
            some = wanted[start : start + size]
            try:
                stored += self._store(some)
            except CredentialError as problem:
                failed += [(one, problem) for one in some]
        forget_workspaces(key for one in stored for key in one.keys)
        for one, why in failed:
            error(f"payload {one.position} ({one.installation.name}): {why.what}", why.hint)
        done = f"registered {len(wanted) - len(failed)} of {len(wanted)} installations"
        secrets = "files of mode 0600" if self.place is SecretPlace.FILE else "the keyring"
        note(f"{done}; the secrets are in {secrets}, the rest in {self.registry.path}")
        return 1 if failed else 0


def _ask_slug(app: Installation, where: str, timeout: float) -> str:
    """Ask Bitbucket for the slug of a workspace that the payload names by its UUID alone. Raises InstallationError."""
    remedy = "name it: git-credential-bbjwt register FILE --workspace SLUG"
    if not app.workspace_uuid:
        raise InstallationError(f"{where} names neither the workspace's slug nor its UUID", remedy)
    try:
        return look_up_workspace(app, _session(timeout))
    except CredentialError as problem:
        raise InstallationError(
            f"{where} does not name the workspace's slug, and a look-up of its UUID failed: {problem.what}", remedy
        ) from problem


def check_secret(new: Installation, timeout: float, remedy: str) -> None:
    """Try the secret of ``new``, which is to replace a registered installation, by one signed request.

    Raises InstallationError with the hint ``remedy`` if Bitbucket refuses it. If it cannot be tried, a note says why.
    """
    if not new.workspace_uuid:
        note(f"the new secret of the {new.name} was not tried: the payload does not name the workspace's UUID")
        return
    seconds = min(_PATIENCE, timeout)
    # A name look-up cannot be ended, so it is in a thread, which ends with the process.
    trial = futures.ThreadPoolExecutor(1).submit(look_up_workspace, new, _session(seconds))
    try:
        trial.result(seconds)
    except futures.TimeoutError:
        note(f"the new secret of the {new.name} could not be tried: there is no response")
    except (RefusedError, ConnectionFailedError, BudgetSpentError) as problem:
        if isinstance(problem, RefusedError) and problem.status == 401:
            raise InstallationError(
                f"Bitbucket refuses the new secret of the {new.name}, so nothing was replaced: {problem.what}", remedy
            ) from problem
        note(f"the new secret of the {new.name} could not be tried: {problem.what}")


def _session(seconds: float) -> Session:
    return Session(Budget(seconds), TokenCache.open(create=False), for_person=True)
