"""How to reach a URL: the proxies and certificate authorities that git itself would use for it.

Sources: git-config(1) ``http.proxy``, ``http.sslCAInfo``, ``http.sslCAPath``; git(1) ``GIT_SSL_CAINFO``; curl(1)
"ENVIRONMENT" for the proxy variables.
"""

import os
import ssl
from base64 import b64encode
from typing import NamedTuple
from urllib.parse import unquote_to_bytes, urlsplit

from git_credential_bbjwt.diagnostics import hide, trace, warning
from git_credential_bbjwt.errors import ConnectionFailedError
from git_credential_bbjwt.git.config import is_false

_SOCKS = ("socks4", "socks4a", "socks5", "socks5h")

_PROXY_HINT = "check http.proxy in git's configuration, and https_proxy, all_proxy and no_proxy in the environment"


class Proxy(NamedTuple):
    """A proxy. ``scheme`` is ``http``, ``https``, or one of curl's for SOCKS; without a user, ``userinfo`` is None."""

    scheme: str
    host: str
    port: int
    userinfo: tuple[bytes, bytes] | None

    @property
    def is_socks(self) -> bool:
        """Whether it speaks SOCKS."""
        return self.scheme in _SOCKS

    @property
    def resolves(self) -> bool:
        """Whether a SOCKS proxy is to look names up itself (curl(1), ``--proxy``)."""
        return self.scheme in ("socks4a", "socks5h")

    @property
    def authorization(self) -> str:
        """The value of the ``Proxy-Authorization`` header of an HTTP proxy, or empty."""
        if self.userinfo is None:
            return ""
        encoded = b64encode(b":".join(self.userinfo)).decode()
        hide(encoded)
        return f"Basic {encoded}"


class Route(NamedTuple):
    """The way to one host. ``ca_file`` and ``ca_path`` are empty where the system's certificates are trusted."""

    proxy: Proxy | None
    ca_file: str
    ca_path: str


def find_route(url: str, settings: dict[str, str]) -> Route:
    """Return the way to ``url`` by git's ``settings`` for it and the environment.

    Raises ConnectionFailedError for a proxy that cannot be used.
    """
    environ = os.environ
    if "GIT_SSL_NO_VERIFY" in environ or is_false(settings.get("sslverify", "true")):
        warning("http.sslVerify is off in git's configuration; this helper verifies certificates all the same")
    for name, why in _NOT_HONOURED.items():
        if settings.get(name):
            raise ConnectionFailedError(
                f"git's configuration sets http.{name} for {url}, which this helper does not honour: {why}",
                f"unset it for Bitbucket: git config --global http.{url}/.{name} ''",
            )
    ca_file = environ.get("GIT_SSL_CAINFO") or settings.get("sslcainfo", "")
    ca_path = environ.get("GIT_SSL_CAPATH") or settings.get("sslcapath", "")
    return Route(find_proxy(url, settings), _absolute(ca_file, "http.sslCAInfo"), _absolute(ca_path, "http.sslCAPath"))


# Each narrows whom git talks to, so passing it over in silence would send a JWT where git itself would not go.
_NOT_HONOURED = {
    "pinnedpubkey": "the JWT would go to whom the pin is to stop",
}


def _absolute(path: str, setting: str) -> str:
    """The file or folder a setting names; none for a relative path, for then the current folder would choose it."""
    path = os.path.expanduser(path)
    if not path or os.path.isabs(path):
        return path
    warning(f"{setting} is a relative path and is not used: the current folder would choose the authority")
    return ""


def find_proxy(url: str, settings: dict[str, str]) -> Proxy | None:
    environ = os.environ
    chosen = settings.get("proxy")
    if chosen is None:
        # An upper-case name counts where the lower-case one is missing, as git does it.
        for name in ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
            if name in environ:
                chosen = environ[name]
                break
    if not chosen:
        return None
    if _goes_direct(urlsplit(url).hostname or ""):
        trace(f"no_proxy: {url} is reached without the proxy")
        return None
    return _parse_proxy(chosen)


def _goes_direct(host: str) -> bool:
    """Whether ``no_proxy`` names ``host``: a name and all below it, an address, a network, or ``*`` (curl(1))."""
    from ipaddress import ip_address, ip_network

    listed = os.environ.get("no_proxy", os.environ.get("NO_PROXY", ""))
    for entry in listed.replace(",", " ").lower().split():
        if entry == "*":
            return True
        name = entry.strip("[].")
        if host == name or host.endswith("." + name):
            return True
        try:
            if ip_address(host) in ip_network(name, strict=False):
                return True
        except ValueError:
            continue
    return False


def _parse_proxy(text: str) -> Proxy:
    try:
        parts = urlsplit(text if "://" in text else "http://" + text)
        host, port = parts.hostname, parts.port
    except ValueError as problem:
        raise ConnectionFailedError("the proxy for Bitbucket is no URL", _PROXY_HINT) from problem
    if parts.password:
        hide(parts.password)
        hide(_decoded(parts.password).decode("utf-8", "surrogateescape"))
    if parts.scheme not in ("http", "https", *_SOCKS):
        raise ConnectionFailedError(
            f"the proxy for Bitbucket is a {parts.scheme} proxy, which is not supported", _PROXY_HINT
        )
    if not host:
        raise ConnectionFailedError("the proxy for Bitbucket is no URL", _PROXY_HINT)
    userinfo = None
    if parts.username is not None:
        userinfo = (_decoded(parts.username), _decoded(parts.password or ""))
    # curl's default port for http proxies, which git inherits, is 1080.
    return Proxy(parts.scheme, host, port or (443 if parts.scheme == "https" else 1080), userinfo)


def _decoded(text: str) -> bytes:
    return unquote_to_bytes(text.encode("utf-8", "surrogateescape"))


def tls_context(route: Route) -> ssl.SSLContext:
    """Return a context that verifies certificate and host name, with the authorities of ``route``.

    Raises ConnectionFailedError where the file of authorities cannot be used.
    """
    if route.ca_file or route.ca_path:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        try:
            context.load_verify_locations(route.ca_file or None, route.ca_path or None)
        except OSError as problem:
            raise ConnectionFailedError(
                f"cannot use the certificate authorities in {route.ca_file or route.ca_path}: {problem}",
                "check http.sslCAInfo and http.sslCAPath in git's configuration, and GIT_SSL_CAINFO",
            ) from problem
        return context
    if os.environ.get("SSL_CERT_FILE") or os.environ.get("SSL_CERT_DIR"):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.set_default_verify_paths()  # OpenSSL reads the two variables itself.
        return context
    import truststore

    return truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
