"""TLS to Bitbucket and to a proxy: whose certificates are trusted, and which one is shown."""

import os
import ssl
import sys

from git_credential_bbjwt.core.failures import ConnectionFailedError
from git_credential_bbjwt.network.route import Certificates


def name_for_tls(host: str) -> str | bytes:
    """The ``server_hostname`` of a TLS connection.

    As bytes where that is enough: for a name as text Python loads what international names need. The trust stores of
    macOS and Windows are asked with a text.
    """
    return host.encode("ascii") if host.isascii() and sys.platform not in ("darwin", "win32") else host


def context_for(certificates: Certificates) -> ssl.SSLContext:
    """Return what verifies a server's certificate and host name, and shows it ours. Raises ConnectionFailedError."""
    context = _trusting(certificates)
    if certificates.cert:
        _show(context, certificates)
    return context


def _trusting(certificates: Certificates) -> ssl.SSLContext:
    ca_file, ca_path = certificates.ca_file, certificates.ca_path
    named_by = "check http.sslCAInfo and http.sslCAPath in git's configuration, and GIT_SSL_CAINFO"
    if not (ca_file or ca_path) and (os.environ.get("SSL_CERT_FILE") or os.environ.get("SSL_CERT_DIR")):
        if sys.platform != "win32":
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.set_default_verify_paths()  # OpenSSL reads the two variables itself.
            return context
        ca_file, ca_path = os.environ.get("SSL_CERT_FILE", ""), os.environ.get("SSL_CERT_DIR", "")
        named_by = "check SSL_CERT_FILE and SSL_CERT_DIR"
    if ca_file or ca_path:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        try:
            context.load_verify_locations(ca_file or None, ca_path or None)
        except OSError as problem:
            raise ConnectionFailedError(
                f"cannot use the certificate authorities in {ca_file or ca_path}: {problem}", named_by
            ) from problem
        return context
    import truststore

    return truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def _show(context: ssl.SSLContext, certificates: Certificates) -> None:
    asked = False

    def password() -> bytes:
        # Else OpenSSL would prompt for one on the terminal.
        nonlocal asked
        asked = True
        return b""

    try:
        context.load_cert_chain(certificates.cert, certificates.key or None, password)
    except OSError as problem:
        if asked:
            what, hint = "it is encrypted, and nobody is asked for its password here", "use a key without a password"
        else:
            what, hint = str(problem.strerror or problem), "check the files that git's configuration names"
        file = certificates.key or certificates.cert
        raise ConnectionFailedError(
            f"cannot use the client key in {file} ({certificates.setting}): {what}", hint
        ) from problem
