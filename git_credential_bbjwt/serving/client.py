"""The client of a broker, as sshd or the kernel knows it: for the audit, never for a decision.

Sources: sshd_config(5) ``ExposeAuthInfo``; ssh(1) "ENVIRONMENT"; unix(7) ``SO_PEERCRED``; RFC 4253 section 6.6
(public keys); OpenSSH's PROTOCOL.certkeys.
"""

import hashlib
import os
import socket
import stat
import struct
from base64 import b64decode, b64encode

_CERTIFICATE = "-cert-v01@openssh.com"

# How many strings the key of a certificate has, by its type. They follow the nonce, and the serial number follows them.
_KEY_FIELDS = {
    "ssh-ed25519": 1,
    "ssh-rsa": 2,
    "ecdsa-sha2-nistp256": 2,
    "ecdsa-sha2-nistp384": 2,
    "ecdsa-sha2-nistp521": 2,
    "sk-ssh-ed25519": 2,
    "sk-ecdsa-sha2-nistp256": 3,
}

# The keys of security keys (OpenSSH's PROTOCOL.u2f) have names with this ending, which their certificates' names lack.
_OPENSSH = "@openssh.com"


def identify_client() -> dict[str, object]:
    """Return what is known about the client; ``by`` names who vouches for it."""
    peer = _peer_of_socket()
    if peer is not None:
        return {"by": "unix", **peer}
    ssh = _of_ssh()
    return {"by": "ssh", **ssh} if ssh else {"by": "uid", "uid": os.getuid()}


def _peer_of_socket() -> dict[str, object] | None:
    """Return the other end of standard input, if that is a socket bound to a path; sshd's own pair is bound to none."""
    try:
        with socket.socket(fileno=os.dup(0)) as connection:
            if connection.family != socket.AF_UNIX or not connection.getsockname():
                return None
            size = struct.calcsize("3i")
            pid, uid, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
    except (OSError, AttributeError):
        return None
    return {"uid": uid, "pid": pid}


def _of_ssh() -> dict[str, object]:
    connection = os.environ.get("SSH_CONNECTION", "").split()
    if not connection:
        return {}
    return {"address": connection[0], **_key_of_ssh(os.environ.get("SSH_USER_AUTH", ""))}


def _key_of_ssh(path: str) -> dict[str, object]:
    """Return what sshd's file for this session says about the key; nothing if the file is not this user's."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError):
        return {}
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
            return {}
        return key_of(os.read(fd, 65_536))
    finally:
        os.close(fd)


def key_of(user_auth: bytes) -> dict[str, object]:
    """Return what the content of SSH_USER_AUTH's file says about a key or certificate, for the audit."""
    words = user_auth.decode("ascii", "replace").split()
    try:
        kind, blob = words[words.index("publickey") + 1], b64decode(words[words.index("publickey") + 2])
        return _of_certificate(kind, blob) if kind.endswith(_CERTIFICATE) else {"key": _fingerprint(blob)}
    except (ValueError, IndexError, KeyError, struct.error):
        return {}


def _fingerprint(blob: bytes) -> str:
    """Return the fingerprint as ``ssh-keygen -l`` shows it."""
    return "SHA256:" + b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")


def _of_certificate(kind: str, blob: bytes) -> dict[str, object]:
    plain = kind.removesuffix(_CERTIFICATE)
    _, key = _strings(blob, 2)  # its type and the nonce
    _, rest = _strings(key, _KEY_FIELDS[plain])
    key = key[: len(key) - len(rest)]
    (serial,) = struct.unpack(">Q", rest[:8])
    (key_id, _), rest = _strings(rest[12:], 2)  # after the certificate's type: the key ID, the principals
    (*_, authority), _ = _strings(rest[16:], 4)  # after its times: critical options, extensions, reserved, authority
    name = (plain + _OPENSSH if plain.startswith("sk-") else plain).encode()
    return {
        "key": _fingerprint(struct.pack(">I", len(name)) + name + key),
        "key_id": key_id.decode("utf-8", "replace"),
        "serial": serial,
        "authority": _fingerprint(authority),
    }


def _strings(data: bytes, count: int) -> tuple[list[bytes], bytes]:
    """Return so many strings at the beginning of ``data``, each after its length, and the rest."""
    found = []
    for _ in range(count):
        (length,) = struct.unpack(">I", data[:4])
        if length > len(data) - 4:
            raise ValueError("a string is longer than the data")
        found.append(data[4 : 4 + length])
        data = data[4 + length :]
    return found, data
