"""TLS to servers and proxies: the trusted authorities, the client certificate, and why a server hung up."""

import contextlib
import os
import socket
import ssl
import sys

from git_credential_bbjwt.core.failures import ConnectionFailedError
from git_credential_bbjwt.network.route import Certificates


def name_for_tls(host: str) -> str | bytes:
    """Return ``host`` as the ``server_hostname`` of a TLS connection.

    As bytes if possible, because for text Python loads its code for international names. The trust stores of macOS and
    Windows need text.
    """
    return host.encode("ascii") if host.isascii() and sys.platform not in ("darwin", "win32") else host


def context_for(certificates: Certificates) -> ssl.SSLContext:
    """Return a context that verifies a server's certificate and name, and sends the client certificate.

    Raises ConnectionFailedError.
    """
    context = _trusting(certificates)
    # Like curl and git, accept a file with only the issuing authority, which some TLS-inspecting proxies provide.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    if certificates.cert:
        _show(context, certificates)
    return context


def _trusting(certificates: Certificates) -> ssl.SSLContext:
    ca_file, ca_path = certificates.ca_file, certificates.ca_path
    named_by = "check GIT_SSL_CAINFO, http.sslCAInfo and http.sslCAPath: "
    named_by += "git config --show-origin --get-regexp 'sslca(info|path)'"
    if not (ca_file or ca_path) and (os.environ.get("SSL_CERT_FILE") or os.environ.get("SSL_CERT_DIR")):
        if sys.platform != "win32":
            return _with_openssls_defaults()  # OpenSSL reads the two variables itself.
        ca_file, ca_path = os.environ.get("SSL_CERT_FILE", ""), os.environ.get("SSL_CERT_DIR", "")
        named_by = "check SSL_CERT_FILE and SSL_CERT_DIR"
    if ca_file or ca_path:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        try:
            context.load_verify_locations(ca_file or None, ca_path or None)
        except OSError as problem:
            raise ConnectionFailedError(
                f"cannot use the certificate authorities in {ca_file or ca_path}: {problem.strerror or problem}",
                named_by,
            ) from problem
        return context
    if sys.platform not in ("darwin", "win32") and _has_defaults():
        return _with_openssls_defaults()

    import truststore

    return truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def _has_defaults() -> bool:
    """Return whether OpenSSL finds authorities by itself. truststore would use them too, but takes long to import."""
    paths = ssl.get_default_verify_paths()
    return bool(paths.cafile or (paths.capath and any(name.endswith(".0") for name in os.listdir(paths.capath))))


def _with_openssls_defaults() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.set_default_verify_paths()
    return context


_FIND_CLIENT_CERTIFICATE = (
    "check GIT_SSL_CERT, GIT_SSL_KEY (for a proxy GIT_PROXY_SSL_CERT, GIT_PROXY_SSL_KEY), and git's settings: "
    "git config --show-origin --get-regexp 'ssl(cert|key)$'"
)


def _show(context: ssl.SSLContext, certificates: Certificates) -> None:
    asked = False

    def password() -> bytes:
        # Without this function, OpenSSL would prompt on the terminal.
        nonlocal asked
        asked = True
        return b""

    try:
        context.load_cert_chain(certificates.cert, certificates.key or None, password)
    except OSError as problem:
        if asked:
            what, hint = "it is encrypted, and the helper does not ask for its password", "use a key without a password"
        else:
            what, hint = str(problem.strerror or problem), _FIND_CLIENT_CERTIFICATE
        files = " and ".join(filter(None, (certificates.cert, certificates.key)))
        raise ConnectionFailedError(
            f"cannot use the client certificate in {files} ({certificates.setting}): {what}", hint
        ) from problem


def why_it_hung_up(stream: socket.socket, problem: OSError) -> OSError:
    """Return the TLS alert by which the server ended the connection; ``problem`` if there was no alert."""
    if not isinstance(problem, (ConnectionError, ssl.SSLEOFError)):
        return problem
    alert = _alert(stream)
    _empty_error_queue()
    return alert or problem


def _alert(stream: socket.socket) -> ssl.SSLError | None:
    """Return a server's TLS alert, if it has sent one. With TLS 1.3, it arrives while the request is being sent."""
    try:
        stream.recv(1)
    except ssl.SSLError as alert:
        return alert
    except OSError:
        pass
    return None


def _empty_error_queue() -> None:
    """Empty OpenSSL's queue of this thread's errors.

    Python (3.13.5 with OpenSSL 3.5) leaves a failed system call in the queue, and reports it again when the thread's
    next connection first waits for data: https://github.com/python/cpython/issues/148594. So every attempt after a
    reset failed. A call with wrong arguments empties the queue.
    """
    with contextlib.suppress(ssl.SSLError):
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).set_ciphers("")
