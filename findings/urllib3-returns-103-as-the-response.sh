#!/bin/sh
# urllib3 and requests return "103 Early Hints" as the final response; the response that follows it is lost.
#
# urllib3 2.8.0 and requests 2.34.2, beside httpx 0.28.1, which reads on. RFC 9110, section 15.2: a client must be able to
# parse interim (1xx) responses before the final one, even if it does not expect any. urllib3 leaves this to http.client,
# which skips 100 alone.
set -eu

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check urllib3==2.8.0 requests==2.34.2 httpx==0.28.1

cat >"$folder/try.py" <<'EOF'
import socket
import threading

import httpx
import requests
import urllib3

RESPONSES = (
    b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n"
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello"
)


def serve() -> None:
    while True:
        connection, _ = server.accept()
        connection.recv(65_536)
        connection.sendall(RESPONSES)
        connection.close()


server = socket.create_server(("127.0.0.1", 0))
threading.Thread(target=serve, daemon=True).start()
url = f"http://127.0.0.1:{server.getsockname()[1]}/"
response = urllib3.PoolManager().request("GET", url)
print("urllib3:", response.status, response.data)
response = requests.get(url, timeout=5)
print("requests:", response.status_code, response.content)
response = httpx.get(url)
print("httpx:", response.status_code, response.content)
EOF
cat >"$folder/expected" <<'EOF'
urllib3: 103 b''
requests: 103 b''
httpx: 200 b'hello'
EOF
HOME=$folder "$folder/venv/bin/python" "$folder/try.py" >"$folder/seen"

cat "$folder/seen"
diff "$folder/expected" "$folder/seen" >&2 || {
    echo "this is no longer as it was found" >&2
    exit 1
}
