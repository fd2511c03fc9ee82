"""Register an installation: its shared secret goes to the keyring, the rest to the registry.

FILE is the payload of the app's `installed` lifecycle callback, bare or under "clientInfo"; - reads it from standard
input. It may also hold many: a JSON array of payloads, or one payload per line; all are checked before the first is
stored. Without FILE each value is asked for. The secret is never an argument. Registering again replaces the
earlier entry.

Examples:
  git-credential-bbjwt register installed.json
  git-credential-bbjwt register installed.json \\
      --repository https://bitbucket.org/acme/widgets
"""

import argparse
import os
import stat
import sys
from json import dumps, loads
from typing import NamedTuple

from git_credential_bbjwt.core.budget import Budget
from git_credential_bbjwt.core.clone_urls import parse_url
from git_credential_bbjwt.core.failures import CredentialError, InstallationError, UsageError
from git_credential_bbjwt.core.options import HelperOptions
from git_credential_bbjwt.core.output import error, hide, note, warning
from git_credential_bbjwt.core.repository import is_name, normal_host, parse_path
from git_credential_bbjwt.getting.obtain import token_for_person
from git_credential_bbjwt.installations.installation import (
    CLOUD_API_URL,
    CLOUD_BASE_URL,
    Installation,
    SecretPlace,
)
from git_credential_bbjwt.installations.payload import parse_payload
from git_credential_bbjwt.installations.registry_changes import BATCH, RegistryFolder
from git_credential_bbjwt.installations.source import unpacked
from git_credential_bbjwt.secret_stores import secret_store
from git_credential_bbjwt.system import terminal
from git_credential_bbjwt.system.ownership import others_can_read, why_not_trusted_itself
from git_credential_bbjwt.tokens.cache import TokenCache
from git_credential_bbjwt.tokens.tidying import forget_workspaces
from git_credential_bbjwt.vendors.connect import look_up_workspace
from git_credential_bbjwt.vendors.session import Session

# What is pasted is one payload, of two kilobytes.
_MAX_PASTED = 1024 * 1024


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("file", nargs="?", metavar="FILE", help="the payload; - for standard input")
    parser.add_argument(
        "--workspace",
        action="append",
        default=[],
        metavar="SLUG",
        help="workspace slug, if the payload has none (repeatable)",
    )
    parser.add_argument("--system", action="store_true", help="for all users of this machine (needs root)")
    parser.add_argument(
        "--insecure-storage", action="store_true", help="keep the secret in a file of mode 0600 instead of the keyring"
    )
    parser.add_argument("--repository", metavar="URL", help="then try to get a token for this repository")


def execute(options: HelperOptions, arguments: argparse.Namespace) -> int:
    """Register. Raises UsageError, InstallationError, SecretError."""
    asked = [workspace.lower() for workspace in arguments.workspace]
    for workspace in asked:
        if not is_name(workspace):
            raise UsageError("--workspace needs the slug that stands in the workspace's URLs")
    if arguments.file is None:
        data, where = _ask(), "the values given"
    else:
        data, where = _read(arguments.file)
    payloads = split_payloads(unpacked(data) or data)
    if len(payloads) > 1 and (asked or arguments.repository):
        raise UsageError("--workspace and --repository go with one payload, and these are several")
    registration = _Registration(RegistryFolder(system=arguments.system), insecure=arguments.insecure_storage)
    wanted = registration.check(payloads, where, asked, options)
    if len(payloads) != 1:
        return registration.store_many(wanted)
    registered = registration.store(wanted)
    new = registered[0]
    slugs = ", ".join(slug for one in registered for slug in one.workspaces)
    note(
        f"registered the {new.name} for {slugs} on {new.host}; "
        f"the secret is {new.secret_place.described}, the rest in {registration.registry.path}"
    )
    return _try(arguments.repository, new, options) if arguments.repository else 0


class _Wanted(NamedTuple):
    """What is to be registered: the payload's ``position`` in what was given, from 1; its installation, its secret."""

    position: int
    installation: Installation
    secret: str


class _Registration:
    def __init__(self, registry: RegistryFolder, *, insecure: bool) -> None:
        self.registry = registry
        self._place = SecretPlace.FILE if insecure else SecretPlace.KEYRING

    def check(self, payloads: list[bytes], where: str, workspaces: list[str], options: HelperOptions) -> list[_Wanted]:
        """Return what the payloads give, once all of them are right. Raises InstallationError."""
        wanted, wrong = [], []
        progress = _Progress("checked", len(payloads))
        for position, data in enumerate(payloads, 1):
            try:
                for given in parse_payload(data, where):
                    wanted += self._checked(position, given, where, workspaces, options)
            except InstallationError as problem:
                if len(payloads) == 1:
                    raise
                wrong.append(f"payload {position}{_app_of(data)}: {problem.what}")
            progress.advance()
        progress.end()
        for line in wrong:
            error(line)
        if wrong:
            raise InstallationError(
                f"{len(wrong)} of {len(payloads)} payloads cannot be used: none of them is registered",
                "correct or leave out those named above",
            )
        return wanted

    def _checked(
        self, position: int, given: Installation, where: str, workspaces: list[str], options: HelperOptions
    ) -> list[_Wanted]:
        hide(given.shared_secret)
        _check_complete(given, where)
        named = workspaces or list(given.workspaces) or self._known_workspaces(given)
        if not named:
            named = [_ask_slug(given, where, options)]
        new = given._replace(
            secret_place=self._place,
            registration=os.urandom(8).hex(),
            where=self.registry.path,
            shared_secret="",
        )
        slugs = dict.fromkeys(named)
        return [_Wanted(position, new._replace(workspaces=(slug,)), given.shared_secret) for slug in slugs]

    def _known_workspaces(self, given: Installation) -> list[str]:
        """What was said of a payload without a slug when it was registered before."""
        same = (
            one for one in self.registry.of_workspace(given.workspace_uuid) if one.keyring_user == given.keyring_user
        )
        return [workspace for one in same for workspace in one.workspaces]

    def store(self, wanted: list[_Wanted]) -> list[Installation]:
        """Store the secrets, then register what they belong to, each whole or not at all. Raises CredentialError."""
        with self.registry.changing() as change:
            if self._place is SecretPlace.FILE:
                secret_store.write_secrets([(one.installation, one.secret) for one in wanted])
                new = [one.installation for one in wanted]
            else:
                new = [
                    one.installation._replace(
                        keyring_backend=secret_store.store_in_keyring(one.installation, one.secret)
                    )
                    for one in wanted
                ]
            replaced = change.put(new)
            change.commit()
            for one in replaced:
                secret_store.remove_replaced_secret(one, change.same(one))
        forget_workspaces(key for one in new for key in one.keys)
        return new

    def store_many(self, wanted: list[_Wanted]) -> int:
        """Store all that can be; return the exit status."""
        failed = 0
        progress = _Progress("registered", len(wanted))
        # Of what goes to the keyring one may fail and the next may not.
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


class _Progress:
    """A bar on a terminal, and nothing where there is none."""

    _WIDTH = 30

    def __init__(self, what: str, of: int) -> None:
        self._what, self._of, self._done = what, of, 0
        self._is_shown = of > 1 and os.isatty(2)

    def advance(self, by: int = 1) -> None:
        before = self._done * self._WIDTH // self._of
        self._done += by
        filled = self._done * self._WIDTH // self._of
        if self._is_shown and (filled != before or self._done == by):
            bar = "#" * filled + "." * (self._WIDTH - filled)
            sys.stderr.write(f"\r[{bar}] {self._what} {self._done} of {self._of}")
            sys.stderr.flush()

    def end(self) -> None:
        """Leave the terminal's line to others."""
        if self._is_shown and self._done:
            sys.stderr.write("\r\033[K")
            sys.stderr.flush()


def split_payloads(data: bytes) -> list[bytes]:
    """Split what was given: one payload, a JSON array of them, or one per line. What is none of these is left whole."""
    text = data.strip()
    lines = text.splitlines()
    if text.startswith(b"["):
        try:
            found = loads(text)
        except (ValueError, RecursionError):
            return [text]
        return [dumps(one).encode() for one in found] or [text]
    # One that is written over several lines is not whole after the first; of the others a broken one is named as such.
    if len(lines) > 1 and _is_json(lines[0]):
        return [line for line in lines if line.strip()]
    return [text]


def _app_of(data: bytes) -> str:
    """The app key of a payload that is wrong otherwise, for an error."""
    try:
        found = loads(data)
    except (ValueError, RecursionError):
        return ""
    found = found.get("clientInfo", found) if isinstance(found, dict) else None
    key = found.get("key") if isinstance(found, dict) else None
    return f" (app {key[:100]})" if isinstance(key, str) and key else ""


def _ask_slug(given: Installation, where: str, options: HelperOptions) -> str:
    """Ask Bitbucket for the slug of a workspace that the payload names by its UUID alone. Raises InstallationError."""
    say_it = "say it: git-credential-bbjwt register FILE --workspace SLUG"
    if not given.workspace_uuid:
        raise InstallationError(f"{where} names neither the workspace's slug nor its UUID", say_it)
    session = Session(Budget(options.timeout), TokenCache.open(create=False), for_person=True)
    try:
        return look_up_workspace(given, session)
    except CredentialError as problem:
        raise InstallationError(
            f"{where} does not name the workspace's slug, and Bitbucket does not tell it: {problem.what}", say_it
        ) from problem


def _check_complete(given: Installation, where: str) -> None:
    for field, value in (
        ("key", given.app_key),
        ("clientKey", given.keyring_user),
        ("sharedSecret", given.shared_secret),
    ):
        if not value:
            raise InstallationError(f"{where}: {field} is missing")


def _read(path: str) -> tuple[bytes, str]:
    try:
        if path == "-":
            data = _read_unseen() if os.isatty(0) else sys.stdin.buffer.read()
            return data, "standard input"
        with open(path, "rb") as file:
            _check_file(file.fileno(), path)
            return file.read(), path
    except (OSError, ValueError) as problem:
        # The path is not repeated: it may be the payload itself by mistake.
        reason = getattr(problem, "strerror", None) or "it is not a path"
        raise InstallationError(
            f"cannot read FILE: {reason}", "give the path of the app's `installed` payload"
        ) from None


def _check_file(fd: int, path: str) -> None:
    """Warn of a payload that others can read. Raises InstallationError for one that others can write."""
    found = os.fstat(fd)
    if not stat.S_ISREG(found.st_mode):
        return  # A pipe: there is no file that stays.
    if why_not_trusted_itself(found, path):
        raise InstallationError(
            f"{path} is not used: others can write to it, or it is another user's, and it says where JWTs are sent",
            "chmod go-w FILE; or, if you trust what is in it: git-credential-bbjwt register - < FILE",
        )
    if others_can_read(found):
        warning(f"others on this machine can read {path}: run chmod 600 on it, or remove it")


def _read_unseen() -> bytes:
    """Read what is pasted at the terminal, and show nothing of it; Ctrl-D, or the end of the JSON, ends it."""
    with terminal.unseen() as read:
        # Not before: what is typed until then is dropped with the change.
        note("paste the payload (it is not shown), then press Ctrl-D")
        data = b""
        while len(data) <= _MAX_PASTED and (piece := read()):
            data += piece
            if b"\x04" in piece or (data.rstrip().endswith(b"}") and _is_json(data)):
                break
    return data.partition(b"\x04")[0]


def _is_json(data: bytes) -> bool:
    try:
        loads(data)
    except ValueError:
        return False
    return True


def _ask() -> bytes:
    """Ask for each value; the secret is not shown while it is typed."""
    if not os.isatty(0):
        raise UsageError("standard input is not a terminal", "pass FILE, or - to read the payload from standard input")
    from getpass import getpass

    def ask(question: str, otherwise: str = "") -> str:
        sys.stderr.write(f"{question}{f' [{otherwise}]' if otherwise else ''}: ")
        sys.stderr.flush()
        line = sys.stdin.readline()
        if not line:
            raise UsageError("interrupted: nothing is registered")
        return line.strip() or otherwise

    fields: dict[str, object] = {
        "key": ask("App key (`key` of the app's descriptor)"),
        "clientKey": ask("Client key (`clientKey` of the `installed` payload)"),
        "sharedSecret": getpass("Shared secret (`sharedSecret`, not shown): "),
        "principal": {"username": ask("Workspace (its slug in URLs)")},
        "baseUrl": ask("Base URL", CLOUD_BASE_URL),
    }
    is_cloud = normal_host(str(fields["baseUrl"]).removeprefix("https://")) == CLOUD_BASE_URL.removeprefix("https://")
    fields["baseApiUrl"] = ask("Base URL of the API", CLOUD_API_URL if is_cloud else "")
    return dumps(fields).encode()


def _try(text: str, installation: Installation, options: HelperOptions) -> int:
    """Mint a token for one repository, to see that all is well. Raises CredentialError where it is not."""
    repository = parse_url(text) if ":" in text else parse_path(installation.host, text.encode())
    if not installation.serves(repository):
        raise UsageError(f"{repository.full_name} on {repository.host} is not of this installation")
    token_for_person(repository, options.replaced(token_store="none", app=installation.app_key))
    note(f"got a token for {repository.full_name}: all is well")
    return 0
