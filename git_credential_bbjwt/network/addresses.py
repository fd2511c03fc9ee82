"""The race of a host's addresses: connections to all, begun 0.25 s apart. The first to connect is used.

Source: RFC 8305 ("Happy Eyeballs Version 2"). Only TCP connections race, so that a proxy sees one request. The standard
library has the race only for asyncio, whose import takes as long as several starts of Python.
"""

import errno
import os
import selectors
import socket
import time
from collections.abc import Callable
from itertools import chain, zip_longest

# RFC 8305, section 8: the delay between two attempts. Seconds.
_NEXT = 0.25


# The error numbers of a connection that has begun, on a socket that does not block; Windows has its own.
_UNDER_WAY = (0, errno.EINPROGRESS, getattr(errno, "WSAEWOULDBLOCK", 0))


class Address:
    """An address to connect to, as `socket.getaddrinfo` returns it."""

    def __init__(self, family: int, place: "tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes]") -> None:
        self.family = family
        self.place = place


def addresses_of(host: str, port: int) -> list[Address]:
    """Return the addresses of ``host``, IPv4 and IPv6 in turn (RFC 8305, section 4). Raises OSError."""
    # As bytes, because for text Python loads its code for international names.
    name = host.encode("ascii") if host.isascii() else host
    found = [
        Address(family, place) for family, _, _, _, place in socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)
    ]
    first = [one for one in found if one.family == found[0].family]
    others = [one for one in found if one.family != found[0].family]
    return [one for one in chain(*zip_longest(first, others)) if one is not None]


def first_to_connect(addresses: list[Address], remaining: Callable[[], float], distrusted: set[str]) -> socket.socket:
    """Return a socket that is connected to one of ``addresses``; the ``distrusted`` ones are tried last.

    ``remaining`` returns the seconds that are left. Raises its errors, and OSError if no address accepts.
    """
    waiting = sorted(addresses, key=lambda one: str(one.place[0]) in distrusted)
    trouble = OSError("it has no address")
    next_at = time.monotonic()
    with selectors.DefaultSelector() as trying:
        try:
            while waiting or trying.get_map():
                pause = remaining()
                if waiting:
                    pause = min(pause, next_at - time.monotonic())
                if waiting and pause <= 0:
                    next_at = time.monotonic() + _NEXT
                    try:
                        trying.register(_begin(waiting.pop(0)), selectors.EVENT_WRITE)
                    except OSError as refused:  # No route, or an unknown family: try the next address at once.
                        trouble, next_at = refused, time.monotonic()
                    continue
                for key, _ in trying.select(pause):
                    connecting = key.fileobj
                    assert isinstance(connecting, socket.socket)
                    trying.unregister(connecting)
                    number = connecting.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                    if not number:
                        connecting.settimeout(remaining())
                        connecting.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                        return connecting
                    connecting.close()
                    trouble, next_at = _error(number), time.monotonic()
        finally:
            for key in list(trying.get_map().values()):
                key.fileobj.close()  # type: ignore[union-attr]  # all are sockets
    raise trouble


def _error(number: int) -> OSError:
    """Return the error with the system's text for its number; Windows has its own texts."""
    return OSError(number, getattr(socket, "errorTab", {}).get(number) or os.strerror(number))


def _begin(address: Address) -> socket.socket:
    """Return a socket that is connecting. Raises OSError for an address that is refused at once."""
    connecting = socket.socket(address.family, socket.SOCK_STREAM)
    connecting.setblocking(False)
    number = connecting.connect_ex(address.place)
    if number not in _UNDER_WAY:
        connecting.close()
        raise _error(number)
    return connecting


def unix_socket(path: str, patience: float) -> socket.socket:
    """Return a socket that is connected to the Unix socket ``path``; ``patience`` is its timeout. Raises OSError."""
    family = getattr(socket, "AF_UNIX", None)
    if family is None:
        raise OSError("this system has no sockets with a path")
    connecting = socket.socket(family)
    try:
        connecting.settimeout(patience)
        connecting.connect(path)
    except BaseException:
        connecting.close()
        raise
    return connecting
