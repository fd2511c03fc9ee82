#!/bin/sh
# With a timeout, Python does not wait for a unix socket whose queue is full: connect() fails at once with EAGAIN.
#
# CPython 3.11.7 on Linux 6.18. Without a timeout connect() waits until the server accepts. With one, the socket is non-blocking,
# and Linux answers EAGAIN for unix sockets (connect(2)), not EINPROGRESS, so Python raises BlockingIOError instead of waiting.
# 100 clients of a busy socket see an error that the same clients without a timeout never see; the helper asks again.
set -eu

seen=$(python3 - <<'END'
import os
import socket
import tempfile
import time

with tempfile.TemporaryDirectory() as folder:
    path = os.path.join(folder, "socket")
    server = socket.socket(socket.AF_UNIX)
    server.bind(path)
    server.listen(0)
    waiting = socket.socket(socket.AF_UNIX)
    waiting.connect(path)  # Fills the queue.
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(5)
    began = time.monotonic()
    try:
        client.connect(path)
        print("connected")
    except OSError as problem:
        print(f"{type(problem).__name__} after {time.monotonic() - began:.1f} s of 5 s")
END
)
echo "$seen"
[ "$seen" = "BlockingIOError after 0.0 s of 5 s" ] || {
    echo "this is no longer as it was found" >&2
    exit 1
}
