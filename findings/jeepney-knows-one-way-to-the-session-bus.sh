#!/bin/sh
# jeepney finds the session bus by DBUS_SESSION_BUS_ADDRESS alone, and fails without it by a KeyError.
#
# jeepney 0.9.0, with keyring 25.7.0 and SecretStorage on top. On systems with systemd the user's bus listens at
# $XDG_RUNTIME_DIR/bus; sd-bus (busctl) and GLib (gdbus) connect to it if the variable is not set, as in a cron job or after
# `su`. jeepney does not look there, so keyring has no Secret Service: its only backend is `fail`.
set -eu

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check jeepney==0.9.0 keyring==25.7.0

cat >"$folder/try.py" <<'EOF'
import os
import socket

import keyring
from jeepney.io.blocking import open_dbus_connection

bus = socket.socket(socket.AF_UNIX)
bus.bind(os.environ["XDG_RUNTIME_DIR"] + "/bus")
bus.listen()
bus.setblocking(False)
os.environ.pop("DBUS_SESSION_BUS_ADDRESS", None)
try:
    open_dbus_connection(bus="SESSION")
except KeyError as missing:
    print("jeepney: KeyError", missing)
print("keyring:", type(keyring.get_keyring()).__module__)
try:
    bus.accept()
    print("the bus was asked")
except BlockingIOError:
    print("nobody connected to the bus")
EOF
cat >"$folder/expected" <<'EOF'
jeepney: KeyError 'DBUS_SESSION_BUS_ADDRESS'
keyring: keyring.backends.fail
nobody connected to the bus
EOF
HOME=$folder XDG_RUNTIME_DIR=$folder "$folder/venv/bin/python" "$folder/try.py" >"$folder/seen"

cat "$folder/seen"
diff "$folder/expected" "$folder/seen" >&2 || {
    echo "this is no longer as it was found" >&2
    exit 1
}
