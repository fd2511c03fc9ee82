"""The errors of requests that failed. Only a failure imports this module."""

import os
import ssl

from git_credential_bbjwt.core.failures import BadAnswerError, ConnectionFailedError
from git_credential_bbjwt.core.server_text import safe_text
from git_credential_bbjwt.network.connection import MOST_BYTES
from git_credential_bbjwt.network.response import TooLongError, UnsendableError

# Characters of a failure's reason that are shown.
_LONGEST_REASON = 300

_HINT = "check the network, and the proxy in git's configuration and the environment; BBJWT_TRACE=1 shows each attempt"

_ANOTHER_SERVER = "another server or a proxy may be answering in its place: check the network"
_CHECK_THE_CLOCK = f"check this machine's date; if it is right, {_ANOTHER_SERVER}"

# By OpenSSL's codes (x509_vfy.h): the certificate is not yet valid, has expired, or is for another name or address.
_HINTS_FOR_CERTIFICATES = {9: _CHECK_THE_CLOCK, 10: _CHECK_THE_CLOCK, 62: _ANOTHER_SERVER, 64: _ANOTHER_SERVER}


def attempt_error(problem: Exception, host: str, base_url: str) -> ConnectionFailedError:
    """Return the error for an attempt that failed with ``problem``; raise it if another attempt cannot help."""
    if isinstance(problem, UnsendableError):
        raise ConnectionFailedError(
            f"the request to {host} has a value with a character that HTTP does not allow",
            "check the values that the request was made of",
        ) from problem
    if isinstance(problem, TooLongError):
        raise BadAnswerError(
            f"the response of {host} is longer than {MOST_BYTES} bytes", "check for a proxy that answers in its place"
        ) from problem
    reason = _reason(problem)
    if isinstance(problem, ssl.SSLCertVerificationError):
        hint = (
            "if your network has its own certificate authority, name its file: git config --global "
            f"http.{base_url}/.sslCAInfo FILE (or SSL_CERT_FILE)"
        )
        named = os.environ.get("SSL_CERT_FILE")
        if named and not os.path.isfile(named):  # OpenSSL says nothing.
            hint += "; SSL_CERT_FILE names a file that is not there"
        hint = _HINTS_FOR_CERTIFICATES.get(getattr(problem, "verify_code", 0), hint)
        raise ConnectionFailedError(f"the certificate of {host} cannot be verified: {reason}", hint) from problem
    if isinstance(problem, ssl.SSLError) and _wants_certificate(problem.reason):
        raise ConnectionFailedError(
            f"{host}, or a proxy, wants a client certificate: {reason}",
            "name it as for git: http.sslCert and http.sslKey; for a proxy http.proxySSLCert and http.proxySSLKey",
        ) from problem
    hint = _HINT
    if isinstance(problem, (ConnectionResetError, ConnectionAbortedError, BrokenPipeError, ssl.SSLEOFError)):
        hint += "; a server that hangs up like this may want a client certificate (http.sslCert)"
    return ConnectionFailedError(f"no response from {host}: {reason}", hint)


def no_response_within(seconds: float, host: str) -> ConnectionFailedError:
    """Return the error for a request without a response in the time that it had."""
    return ConnectionFailedError(f"no response from {host} within {seconds:g} s", _HINT)


def _reason(problem: Exception) -> str:
    """Return the words of the system, OpenSSL or a proxy library for a failure."""
    text = getattr(problem, "verify_message", None) or getattr(problem, "strerror", None) or str(problem)
    return safe_text(str(text), _LONGEST_REASON) or type(problem).__name__


def _wants_certificate(reason: str) -> bool:
    """Return whether a server wanted a certificate (RFC 8446, section 6.2; before TLS 1.3, alerts are less exact).

    ``reason`` is OpenSSL's.
    """
    alerts = ("CERTIFICATE_REQUIRED", "BAD_CERTIFICATE", "CERTIFICATE_UNKNOWN", "UNKNOWN_CA", "HANDSHAKE_FAILURE")
    return any(f"ALERT_{alert}" in str(reason) for alert in alerts)
