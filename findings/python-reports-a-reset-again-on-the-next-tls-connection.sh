#!/bin/sh
# After a TLS connection was reset, Python reports the failure again on the next connection of the same thread.
#
# CPython 3.13.5 with OpenSSL 3.5 (Debian 13); not CPython 3.11.7 with OpenSSL 3.0. A read after the reset makes OpenSSL send an
# alert, which fails. The ssl module raises BrokenPipeError and leaves the error in OpenSSL's queue of the thread. If the next
# connection has to wait for data, SSL_get_error(3) finds the old error first: https://github.com/python/cpython/issues/148594.
# A handshake empties the queue, but the helper's connections are opened by threads of their own; see network/connection.py.
#
# Needs root, debootstrap and openssl. The Debian 13 is made in a temporary folder; it uses this machine's mirror.
set -eu

folder=$(mktemp -d /var/tmp/finding.XXXXXX)
trap 'rm -rf --one-file-system "$folder"' EXIT
chmod 755 "$folder"
mirror=$(cat /etc/apt/sources.list /etc/apt/sources.list.d/* 2>/dev/null |
    sed -nE 's/^URIs: *([^ ]+\/debian) *$/\1/p; s/^deb +(\[[^]]*\] +)?([^ ]+\/debian) .*/\2/p' | sed 1q)
unshare --mount debootstrap --variant=minbase --include=python3-minimal,libpython3-stdlib trixie "$folder" \
    "$mirror" >/dev/null
openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=localhost -days 1 \
    -keyout "$folder/root/key" -out "$folder/root/certificate" 2>/dev/null
cat >"$folder/root/try.py" <<'END'
import socket
import ssl
import struct
import threading
import time

folder = "/root"
served = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
served.load_cert_chain(f"{folder}/certificate", f"{folder}/key")
served.num_tickets = 0  # Tickets arrive late over a real distance.
trusting = ssl.create_default_context(cafile=f"{folder}/certificate")
trusting.check_hostname = False
listening = socket.create_server(("127.0.0.1", 0))


def serve():
    for what in ("reset", "answer"):
        with served.wrap_socket(listening.accept()[0], server_side=True) as stream:
            stream.recv(100)
            if what == "reset":
                stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            else:
                time.sleep(0.5)
                try:
                    stream.sendall(b"answer")
                except OSError:
                    pass


def connect(opened):
    opened.append(trusting.wrap_socket(socket.create_connection(listening.getsockname())))


threading.Thread(target=serve).start()
for name in ("first", "second"):
    opened = []
    opening = threading.Thread(target=connect, args=(opened,))
    opening.start()
    opening.join()
    opened[0].settimeout(5)
    opened[0].sendall(b"request")
    for _ in range(2 if name == "first" else 1):
        try:
            print(f"{name} connection:", opened[0].recv(100))
        except OSError as problem:
            print(f"{name} connection:", repr(problem))
    opened[0].close()
END
cat >"$folder/expected" <<'END'
3.13.5 OpenSSL 3.5
first connection: ConnectionResetError(104, 'Connection reset by peer')
first connection: BrokenPipeError(32, 'Broken pipe')
second connection: BrokenPipeError(32, 'Broken pipe')
END
{
    chroot "$folder" python3 -c 'import ssl, sys; print(sys.version.split()[0], ssl.OPENSSL_VERSION[:11])'
    chroot "$folder" python3 /root/try.py
} >"$folder/seen"

cat "$folder/seen"
diff "$folder/expected" "$folder/seen" >&2 || {
    echo "this is no longer as it was found" >&2
    exit 1
}
