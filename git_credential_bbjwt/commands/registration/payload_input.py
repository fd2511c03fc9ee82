"""The input of `register`: payloads from a file or the terminal, and secrets that a person types."""

import os
import stat
import sys
from json import dumps, loads

from git_credential_bbjwt.core.failures import InstallationError, UsageError
from git_credential_bbjwt.core.output import hide, note, warning
from git_credential_bbjwt.core.source import Payload, unpacked
from git_credential_bbjwt.installations.wrappers import APP, CONSUMER
from git_credential_bbjwt.system import terminal

# Limit of a pasted payload in bytes. A real payload has about 2 kB.
_MAX_PASTED = 1024 * 1024


# Bitbucket's secrets have up to 128 characters. Bytes.
_LONGEST_SECRET_FILE = 4096


def read_payloads(path: str) -> tuple[list[bytes], str]:
    """Return the payloads in the file ``path``, and the name of the file in errors. Raises InstallationError."""
    if path == "-":
        data, where = (_read_unseen() if os.isatty(0) else sys.stdin.buffer.read()), "standard input"
    else:
        data, where = _content(path, "FILE", longest=sys.maxsize), path
    return split_payloads(unpacked(data) or data), where


def read_secret(path: str) -> str:
    """Return the secret in the file of --secret-file. Raises InstallationError."""
    data = _content(path, "--secret-file", longest=_LONGEST_SECRET_FILE, kind=_Secret)
    secret = data.decode("utf-8", "replace").removeprefix("\ufeff").strip()
    hide(secret)
    if not secret.isprintable() or "\ufffd" in secret:
        raise InstallationError(
            f"{path} is not a secret: it must hold one line of text", "write the secret alone to it"
        )
    return secret


class _Secret(Payload):
    content = "secret"


def _content(path: str, named_by: str, *, longest: int, kind: type[Payload] = Payload) -> bytes:
    if _is_pipe(path):
        with open(path, "rb") as pipe:
            return pipe.read()
    source = kind.in_file(path, named_by=named_by, longest=longest)
    if source.problem is not None:
        raise InstallationError(f"cannot use {source.where}: {source.problem}", source.remedy)
    if source.exposed:
        warning(f"others on this machine can read {path}: run chmod 600 on it, or remove it")
    return source.data or b""


def _is_pipe(path: str) -> bool:
    """Return whether ``path`` is neither a file nor a folder, such as the pipe of a shell's ``<(COMMAND)``."""
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return False
    return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)


def split_payloads(data: bytes) -> list[bytes]:
    """Split a JSON array of payloads, or one payload per line. Anything else is returned as one payload."""
    text = data.strip()
    lines = text.splitlines()
    if text.startswith(b"["):
        try:
            return [dumps(one).encode() for one in loads(text)] or [text]
        except (ValueError, RecursionError):
            return [text]
    # If the first line alone is JSON, each line is a payload. Otherwise, one payload has several lines.
    if len(lines) > 1 and _parsed(lines[0]) is not None:
        return [line for line in lines if line.strip()]
    return [text]


def app_of(data: bytes) -> str:
    """Return the app of a payload that cannot be used, in words for an error; empty if the payload has no key."""
    found = _parsed(data)
    for wrapper in (APP, CONSUMER):
        found = found.get(wrapper, found) if isinstance(found, dict) else None
    key = found.get("key") if isinstance(found, dict) else None
    return f" (app {key[:100]})" if isinstance(key, str) and key else ""


def ask_consumer(workspaces: list[str]) -> bytes:
    """Ask at the terminal for an OAuth consumer of the workspace; return it as a payload. Raises UsageError."""
    if len(workspaces) != 1:
        raise UsageError(
            "--oauth-consumer needs the one workspace of the consumer",
            "name it: git-credential-bbjwt register --oauth-consumer --workspace SLUG",
        )
    if not os.isatty(0):
        raise UsageError(
            "--oauth-consumer asks at a terminal, but standard input is not a terminal",
            'pipe {"oauthConsumer": {"key": …, "secret": …, "workspace": …}} to: git-credential-bbjwt register -',
        )
    key = terminal.ask("Key of the OAuth consumer: ")
    secret = ask_secret("Secret of the OAuth consumer (not shown): ")
    return dumps({CONSUMER: {"key": key, "secret": secret, "workspace": workspaces[0]}}).encode()


def ask_secret(question: str) -> str:
    """Ask for a secret at the terminal, without showing it. Raises UsageError if nothing is typed."""
    from getpass import getpass

    try:
        secret = getpass(question, stream=sys.stderr).strip()
    except EOFError:
        secret = ""
    if not secret:
        raise UsageError("no secret was given: nothing is registered", "run the command again, and paste the secret")
    hide(secret)
    return secret


def _read_unseen() -> bytes:
    """Read a pasted payload from the terminal without showing it, up to Ctrl-D or the end of the JSON."""
    with terminal.unseen() as read:
        # The note comes after the change of the terminal, which drops everything that was typed before.
        note("paste the payload (it is not shown), then press Ctrl-D")
        data = b""
        while len(data) <= _MAX_PASTED and (piece := read()):
            data += piece
            if b"\x04" in piece or (data.rstrip().endswith(b"}") and _parsed(data) is not None):
                break
    return data.partition(b"\x04")[0]


def _parsed(data: bytes) -> object:
    """Return the JSON value in ``data``; None if it is not JSON."""
    try:
        found: object = loads(data)
    except (ValueError, RecursionError):
        return None
    return found
