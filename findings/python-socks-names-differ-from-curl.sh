#!/bin/sh
# A proxy URL means something else to python-socks than to curl and git: socks5:// resolves names at the proxy.
#
# python-socks 3.2.1. For curl, and so for git, `socks5://` and `socks4://` resolve names on the client, `socks5h://` and
# `socks4a://` at the proxy. python-socks sends names to a socks5 proxy and resolves them itself for socks4, unless `rdns` says
# otherwise. It refuses `socks5h` and `socks4a`, curl's names for resolving at the proxy, as invalid.
set -eu

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check python-socks==3.2.1

cat >"$folder/try.py" <<'EOF'
import socket
import threading

from python_socks import ProxyError
from python_socks.sync import Proxy


def serve() -> None:
    while True:
        connection, _ = server.accept()
        request = connection.recv(300)
        if request[0] == 5:
            connection.sendall(b"\5\0")  # No password is needed (RFC 1928, section 3).
            request = connection.recv(300)
        asked.append(request)
        connection.close()


asked: list[bytes] = []
server = socket.create_server(("127.0.0.1", 0))
threading.Thread(target=serve, daemon=True).start()
for scheme in ("socks5", "socks4", "socks5h", "socks4a"):
    try:
        proxy = Proxy.from_url(f"{scheme}://127.0.0.1:{server.getsockname()[1]}")
        proxy.connect(dest_host="localhost", dest_port=80, timeout=5)
    except (ProxyError, OSError):
        print(scheme, "sends", "the name" if b"localhost" in asked[-1] else "an address")
    except ValueError as refused:
        print(scheme, "is refused:", refused)
EOF
cat >"$folder/expected" <<'EOF'
socks5 sends the name
socks4 sends an address
socks5h is refused: Invalid scheme component: socks5h
socks4a is refused: Invalid scheme component: socks4a
EOF
HOME=$folder "$folder/venv/bin/python" "$folder/try.py" >"$folder/seen"

cat "$folder/seen"
diff "$folder/expected" "$folder/seen" >&2 || {
    echo "this is no longer as it was found" >&2
    exit 1
}
