"""The route to a URL: the proxy, the certificates and the addresses that git itself would use.

Sources: git-config(1), ``http.*``; git(1), ``GIT_SSL_*`` and ``GIT_PROXY_SSL_*``, which override the configuration;
curl(1), "ENVIRONMENT" for the proxy variables.
"""

import os
from typing import NamedTuple
from urllib.parse import unquote, unquote_to_bytes, urlsplit

from git_credential_bbjwt.core.failures import ConnectionFailedError
from git_credential_bbjwt.core.output import hide, trace, warning
from git_credential_bbjwt.git.http_settings import Settings
from git_credential_bbjwt.git.settings import is_false

# Git's schemes of SOCKS proxies; ``socks`` is SOCKS4.
_SOCKS = ("socks", "socks4", "socks4a", "socks5", "socks5h")

_DIGITS_OF_A_PORT = 5

_PROXY_HINT = "check http.proxy in git's configuration, and https_proxy, all_proxy and no_proxy in the environment"


class Proxy(NamedTuple):
    """A proxy. ``scheme`` is ``http``, ``https``, or one of git's for SOCKS; without a user, ``userinfo`` is None.

    ``socket_path`` is the path of a SOCKS proxy's Unix socket; it is empty for a proxy at a host and port.
    """

    scheme: str
    host: str
    port: int
    userinfo: tuple[bytes, bytes] | None
    socket_path: str = ""

    @property
    def place(self) -> str:
        """Return its host and port, or its socket, for messages."""
        return self.socket_path or f"{self.host}:{self.port}"

    @property
    def is_socks(self) -> bool:
        """Return whether it is a SOCKS proxy."""
        return self.scheme in _SOCKS

    @property
    def resolves(self) -> bool:
        """Return whether a SOCKS proxy looks names up itself (curl(1), ``--proxy``)."""
        return self.scheme in ("socks4a", "socks5h")


class Certificates(NamedTuple):
    """Files for TLS with one peer: authorities (empty: the system's), the client certificate and its key.

    ``setting`` is git's setting for the client certificate. If one file contains both, ``key`` is empty.
    """

    ca_file: str
    ca_path: str
    cert: str
    key: str
    setting: str


class Route(NamedTuple):
    """The route to one host. ``resolve`` has the addresses that replace a name's own, by host and port."""

    proxy: Proxy | None
    certificates: Certificates
    proxy_certificates: Certificates
    resolve: dict[tuple[str, int], list[str]]

    def addresses(self, host: str, port: int) -> list[str] | None:
        """Return the addresses that replace those of ``host``, if there are any (curl(1), ``--resolve``)."""
        host = host.lower()
        return self.resolve.get((host, port)) or self.resolve.get(("*", port))


def find_route(url: str, settings: Settings) -> Route:
    """Return the route to ``url`` by git's ``settings`` for it and the environment.

    Raises ConnectionFailedError for a proxy that cannot be used, and for a setting that would make the connection safer
    but is not honoured.
    """
    proxy = find_proxy(url, settings)
    _refuse_or_warn(url, settings, proxy)
    return Route(
        proxy,
        Certificates(
            _file("GIT_SSL_CAINFO", "http.sslCAInfo", settings),
            _file("GIT_SSL_CAPATH", "http.sslCAPath", settings),
            _file("GIT_SSL_CERT", "http.sslCert", settings),
            _file("GIT_SSL_KEY", "http.sslKey", settings),
            "http.sslCert",
        ),
        Certificates(
            _file("GIT_PROXY_SSL_CAINFO", "http.proxySSLCAInfo", settings),
            "",
            _file("GIT_PROXY_SSL_CERT", "http.proxySSLCert", settings),
            _file("GIT_PROXY_SSL_KEY", "http.proxySSLKey", settings),
            "http.proxySSLCert",
        ),
        _resolve(settings.every("curloptresolve")),
    )


def _refuse_or_warn(url: str, settings: Settings, proxy: Proxy | None) -> None:
    if "GIT_SSL_NO_VERIFY" in os.environ or is_false(settings.last("sslverify") or "true"):
        warning("http.sslVerify is off in git's configuration; this helper verifies certificates anyway")
    for one in NOT_HONOURED:
        value = os.environ.get(one.variable) if one.variable else None
        value = settings.last(one.name.lower()) if value is None else value
        if not value or value.lower() in one.harmless or (one.is_of_proxy and proxy is None):
            continue
        what = f"git's configuration sets http.{one.name} for {url}, which this helper does not honour"
        if not one.is_refused:
            warning(f"{what}: {one.why}")
            continue
        raise ConnectionFailedError(
            f"{what}: {one.why}", f"unset it for this URL: git config --global http.{url}/.{one.name} ''"
        )


class _NotHonoured(NamedTuple):
    """A setting of git's that makes connections safer and is not honoured: an error, or a warning."""

    name: str
    variable: str
    why: str
    is_refused: bool = True
    harmless: tuple[str, ...] = ()
    is_of_proxy: bool = False


_PEM_ONLY = "only files of the type PEM are read"

#: If these were ignored silently, credentials would go to a server that git avoids, or requests would fail without a
#: reason.
NOT_HONOURED = (
    _NotHonoured("pinnedPubkey", "", "the credentials would go to a server that the pin excludes"),
    _NotHonoured("sslCertType", "GIT_SSL_CERT_TYPE", _PEM_ONLY, harmless=("pem",)),
    _NotHonoured("sslKeyType", "GIT_SSL_KEY_TYPE", _PEM_ONLY, harmless=("pem",)),
    _NotHonoured(
        "proxyAuthMethod",
        "GIT_HTTP_PROXY_AUTHMETHOD",
        "it knows only basic authentication for a proxy",
        harmless=("basic", "anyauth"),
        is_of_proxy=True,
    ),
    _NotHonoured("sslVersion", "GIT_SSL_VERSION", "TLS 1.2 and newer are used", is_refused=False),
    _NotHonoured("sslCipherList", "GIT_SSL_CIPHER_LIST", "OpenSSL's own ciphers are used", is_refused=False),
)


def _file(variable: str, setting: str, settings: Settings) -> str:
    """Return the file or folder that a setting names; empty for a relative path, which the current folder chooses."""
    path = os.environ.get(variable) or settings.last(setting.partition(".")[2].lower()) or ""
    path = os.path.expanduser(path)
    if not path or os.path.isabs(path):
        return path
    warning(f"{setting} is a relative path and is not used, because the current folder would choose the file")
    return ""


def _resolve(values: list[str]) -> dict[tuple[str, int], list[str]]:
    """Parse values of ``http.curloptResolve``: ``[+]HOST:PORT:ADDRESS[,ADDRESS]...``, ``-HOST:PORT`` removes."""
    found: dict[tuple[str, int], list[str]] = {}
    for value in values:
        name, _, addresses = value.strip().removeprefix("+").partition(":")
        port, _, addresses = addresses.partition(":")
        is_port = port.isascii() and port.isdigit() and len(port) <= _DIGITS_OF_A_PORT
        if not name or not is_port or not addresses:
            if value.startswith("-") and is_port:
                found.pop((name.removeprefix("-").lower(), int(port)), None)
                continue
            warning("a value of http.curloptResolve in git's configuration is not HOST:PORT:ADDRESS and is not used")
            continue
        listed = [one.strip("[] ") for one in addresses.split(",")]
        found[name.lower(), int(port)] = [one for one in listed if one]
    return found


def find_proxy(url: str, settings: Settings) -> Proxy | None:
    """Return the proxy for ``url``, if there is one. Raises ConnectionFailedError."""
    environ = os.environ
    chosen = settings.last("proxy")
    if chosen is None:
        # Like git, use an upper-case name if the lower-case name is not set.
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
    """Return whether ``no_proxy`` lists ``host``: a name or one above it, an address, a network, ``*`` (curl(1))."""
    from ipaddress import ip_address, ip_network

    listed = os.environ.get("no_proxy", os.environ.get("NO_PROXY", ""))
    if listed.strip() == "*":
        return True
    for entry in listed.replace(",", " ").lower().split():
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
        raise ConnectionFailedError("the configured proxy is not a URL", _PROXY_HINT) from problem
    if parts.password:
        hide(parts.password)
        hide(_decoded(parts.password).decode("utf-8", "surrogateescape"))
    if parts.scheme not in ("http", "https", *_SOCKS):
        raise ConnectionFailedError("the scheme of the configured proxy is not supported", _PROXY_HINT)
    if not host:
        raise ConnectionFailedError("the configured proxy is not a URL", _PROXY_HINT)
    userinfo = None
    if parts.username and parts.password is None:
        # Git would ask for the password at the terminal.
        raise ConnectionFailedError(
            f"the URL of the proxy {host} has a user name but no password",
            "write both into the URL: http.proxy = http://USER:PASSWORD@HOST:PORT (with an empty password: USER:@)",
        )
    if parts.username:
        userinfo = (_decoded(parts.username), _decoded(parts.password or ""))
    # As in git 2.47: a SOCKS proxy at a Unix socket is socks5://localhost/PATH.
    path = unquote(parts.path.strip("/")) if parts.scheme in _SOCKS and host == "localhost" else ""
    # curl's default port for http proxies, which git inherits, is 1080.
    port = port or (443 if parts.scheme == "https" else 1080)
    return Proxy(parts.scheme, host, port, userinfo, f"/{path}" if path else "")


def _decoded(text: str) -> bytes:
    return unquote_to_bytes(text.encode("utf-8", "surrogateescape"))
