"""Register an installation: its shared secret goes to the keyring, the rest to the registry.

FILE is the payload of the app's `installed` lifecycle callback, bare or under "clientInfo"; - reads it from standard
input. Without FILE each value is asked for. The secret is never an argument. Registering again replaces.

Examples:
  git-credential-bbjwt register installed.json
  git-credential-bbjwt register installed.json --repository https://bitbucket.org/acme/widgets
"""

import argparse
import os
import secrets
import stat
import sys
import termios
from json import dumps, loads

from git_credential_bbjwt import diagnostics, minting
from git_credential_bbjwt.errors import InstallationError, UsageError
from git_credential_bbjwt.installations import secret_store
from git_credential_bbjwt.installations.payload import CLOUD_API_URL, CLOUD_BASE_URL, Installation, parse_payload
from git_credential_bbjwt.installations.registry import Registry
from git_credential_bbjwt.installations.sources import unpacked
from git_credential_bbjwt.options import HelperOptions
from git_credential_bbjwt.repository import is_name, normal_host, parse_path, parse_url

_MAX_PAYLOAD = 1024 * 1024


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("file", nargs="?", metavar="FILE", help="the payload; - for standard input")
    parser.add_argument(
        "--workspace",
        action="append",
        default=[],
        metavar="SLUG",
        help="workspace it is for, where the payload names none; may be given several times",
    )
    parser.add_argument("--system", action="store_true", help="for all users of this machine (needs root)")
    parser.add_argument(
        "--insecure-storage", action="store_true", help="keep the secret in a file of mode 0600 instead of the keyring"
    )
    parser.add_argument("--repository", metavar="URL", help="then try to get a token for this repository")


def run(options: HelperOptions, arguments: argparse.Namespace) -> int:
    """Register. Raises UsageError, InstallationError, SecretError; nothing has changed then."""
    asked = [workspace.lower() for workspace in arguments.workspace]
    for workspace in asked:
        if not is_name(workspace):
            raise UsageError("--workspace needs the slug that stands in the workspace's URLs")
    if arguments.file is None:
        payload = _ask()
        where = "the values given"
    else:
        payload, where = _read(arguments.file)
    given = parse_payload(unpacked(payload) or payload, where)
    secret = given.shared_secret
    diagnostics.hide(secret)
    _check_complete(given, where)
    registry = Registry(system=arguments.system)
    with registry.changing() as installations:
        same = [one for one in installations if (one.host, one.client_key) == (given.host, given.client_key)]
        workspaces = asked or list(given.workspaces) or [w for one in same for w in one.workspaces]
        if not workspaces:
            raise InstallationError(
                f"{where} does not name the workspace's slug",
                "say it: git-credential-bbjwt register FILE --workspace SLUG",
            )
        new = given._replace(
            workspaces=tuple(dict.fromkeys(workspaces)),
            secret_place="file" if arguments.insecure_storage else "keyring",
            registration=secrets.token_hex(8),
            where=registry.path,
            shared_secret="",
        )
        new = new._replace(keyring_backend=secret_store.store_secret(new, secret))
        replaced = _replace(installations, new)
    for one in replaced:
        if one.client_key != new.client_key or one.secret_place != new.secret_place:
            secret_store.remove_secret(one)
    minting.forget(lambda record: new.serves(record.repository))
    diagnostics.note(
        f"registered the app {new.app_key} for {', '.join(new.workspaces)} on {new.host}; "
        f"the secret is {new.secret_described}, the rest in {registry.path}"
    )
    if arguments.repository:
        return _try(arguments.repository, new, options)
    return 0


def _check_complete(given: Installation, where: str) -> None:
    for field, value in (
        ("key", given.app_key),
        ("clientKey", given.client_key),
        ("sharedSecret", given.shared_secret),
    ):
        if not value:
            raise InstallationError(f"{where}: {field} is missing", "use the whole `installed` payload")


def _read(path: str) -> tuple[bytes, str]:
    try:
        if path == "-":
            data = _read_unseen() if os.isatty(0) else sys.stdin.buffer.read(_MAX_PAYLOAD)
            return data, "standard input"
        with open(path, "rb") as file:
            _check_file(os.fstat(file.fileno()), path)
            return file.read(_MAX_PAYLOAD), path
    except (OSError, ValueError) as problem:
        # The path is not repeated: it may be the payload itself by mistake.
        reason = getattr(problem, "strerror", None) or "it is not a path"
        raise InstallationError(
            f"cannot read FILE: {reason}", "give the path of the app's `installed` payload"
        ) from None


def _check_file(found: os.stat_result, path: str) -> None:
    """Warn of a payload that others can read. Raises InstallationError for one that others can write."""
    if not stat.S_ISREG(found.st_mode):
        return  # A pipe: there is no file that stays.
    if found.st_uid not in (0, os.geteuid()) or found.st_mode & 0o022:
        raise InstallationError(
            f"{path} is not used: others can write to it, or it is another user's, and it says where JWTs are sent",
            "chmod go-w FILE; or, if you trust what is in it: git-credential-bbjwt register - < FILE",
        )
    if found.st_mode & 0o044:
        diagnostics.warning(f"others on this machine can read {path}: run chmod 600 on it, or remove it")


def _read_unseen() -> bytes:
    """Read what is pasted at the terminal, and show nothing of it; Ctrl-D, or the end of the JSON, ends it."""
    before = termios.tcgetattr(0)
    unseen = termios.tcgetattr(0)
    # Not by lines either: the terminal cuts one after 4095 characters, and a payload may be a single one.
    unseen[3] &= ~(termios.ECHO | termios.ICANON)
    unseen[6][termios.VMIN], unseen[6][termios.VTIME] = 1, 0
    termios.tcsetattr(0, termios.TCSAFLUSH, unseen)
    try:
        # Not before: what is typed until then is dropped with the change.
        diagnostics.note("paste the payload (it is not shown), then press Ctrl-D")
        data = b""
        while len(data) <= _MAX_PAYLOAD and (piece := os.read(0, 4096)):
            data += piece
            if b"\x04" in piece or (data.rstrip().endswith(b"}") and _is_json(data)):
                break
    finally:
        termios.tcsetattr(0, termios.TCSAFLUSH, before)
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
        raise UsageError("there is nobody to ask for the values", "name the payload's FILE, or - for standard input")
    from getpass import getpass

    def ask(question: str, otherwise: str = "") -> str:
        sys.stderr.write(f"{question}{f' [{otherwise}]' if otherwise else ''}: ")
        sys.stderr.flush()
        line = sys.stdin.readline()
        if not line:
            raise UsageError("broken off: nothing is registered")
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


def _replace(installations: list[Installation], new: Installation) -> list[Installation]:
    """Put ``new`` into the list, and return what it takes the whole place of.

    That is the same client key, and for the same workspaces the same app: installed anew it has another client key.
    """
    gone = []
    for one in list(installations):
        if one.host != new.host:
            continue
        same_client = one.client_key == new.client_key
        rest = tuple(w for w in one.workspaces if w not in new.workspaces)
        if same_client or (one.app_key == new.app_key and not rest):
            installations.remove(one)
            gone.append(one)
        elif one.app_key == new.app_key and rest != one.workspaces:
            installations[installations.index(one)] = one._replace(workspaces=rest)
    installations.append(new)
    return gone


def _try(text: str, installation: Installation, options: HelperOptions) -> int:
    """Mint a token for one repository, to see that all is well. Raises CredentialError where it is not."""
    repository = parse_url(text) if ":" in text else parse_path(installation.host, text.encode())
    if not installation.serves(repository):
        raise UsageError(f"{repository.full_name} on {repository.host} is not of this installation")
    options.token_store = "none"
    options.app = installation.app_key
    minting.get_for_person(repository, options)
    diagnostics.note(f"got a token for {repository.full_name}: all is well")
    return 0
