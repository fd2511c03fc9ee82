#!/bin/sh
# Python leaves a socket open if the peer resets the connection before it is wrapped for TLS.
#
# CPython 3.11.2, 3.11.7 and 3.12.1; not 3.13.0. `SSLContext.wrap_socket` moves the descriptor to a new socket and then looks
# whether the peer is there. If the connection was reset, the new socket's first read raises ConnectionResetError, and nobody
# closes the new socket: the caller has only the old one, which is empty. It stays open until it is collected, with a
# ResourceWarning. The tests' servers look at the peer's name first.
set -eu

seen=$(python3 -W always - 2>&1 <<'END'
import socket
import ssl
import struct
import time

context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
with socket.create_server(("127.0.0.1", 0)) as listening:
    client = socket.create_connection(listening.getsockname())
    accepted = listening.accept()[0]
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()
    time.sleep(0.2)
    try:
        context.wrap_socket(accepted, server_side=True)
    except OSError as problem:
        print(type(problem).__name__, "and the caller's descriptor is", accepted.fileno(), flush=True)
END
)
seen=$(echo "$seen" | grep -v tracemalloc | sed 's/ fd=.*//; s/^[^ ]*: ResourceWarning/ResourceWarning/')
echo "$seen"
[ "$seen" = "ConnectionResetError and the caller's descriptor is -1
ResourceWarning: unclosed <ssl.SSLSocket" ] || {
    echo "this is no longer as it was found" >&2
    exit 1
}
