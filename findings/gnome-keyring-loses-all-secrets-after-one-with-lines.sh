#!/bin/sh
# If a keyring of gnome-keyring has no password, one secret with several lines makes all its secrets disappear at the next start.
#
# gnome-keyring 42.1 with keyring 25.7.0 and SecretStorage 3.5.0; gnome-keyring 51.1 does the same. The Secret Service API lets a
# secret be any text, and gnome-keyring returns one with several lines until it ends. A keyring without a password, as people have
# it who log in automatically, is stored in the form of an INI file. gnome-keyring writes line breaks into it as they are, and at
# the next start refuses the file (https://github.com/omacom/omarchy/issues/5105, open). Of further lines that look like
# `name=value`, only these lines are lost. git-credential-libsecret of git 2.55.0 stores `password_expiry_utc` as the second line of
# a secret, so after the next start git uses the token as if it had no end. A program should store a secret on one line.
#
# Needs dbus-run-session, dbus-send and gnome-keyring-daemon. The keyrings and their buses are made in a temporary folder.
set -eu

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check keyring==25.7.0 SecretStorage==3.5.0

cat >"$folder/try.py" <<'END'
import sys

from keyring.backends.SecretService import Keyring
from keyring.errors import InitError

method, *arguments = sys.argv[1:]
try:
    print(" ", method, arguments[0], repr(getattr(Keyring(), method)("service", *arguments)))
except InitError as problem:
    print(" ", method, arguments[0], type(problem).__name__)
END
cat >"$folder/session" <<'END'
gnome-keyring-daemon --foreground --components=secrets >"$HOME/log" 2>&1 &
until dbus-send --print-reply --dest=org.freedesktop.DBus / org.freedesktop.DBus.NameHasOwner \
    string:org.freedesktop.secrets | grep -q true; do sleep 0.1; done
keyring() { timeout 20 "$PYTHON" "$TRY" "$@"; }
if [ "$1" = store ]; then
    keyring set_password first 'one line' >/dev/null
    keyring set_password second "$2" >/dev/null
else
    keyring get_password first
    keyring get_password second
    grep --only-matching 'keyring was in .* format' "$HOME/log" || true
fi
kill "$!"
wait "$!" || true
END
unset DISPLAY WAYLAND_DISPLAY # Without a screen, nobody is asked for the password of a new keyring.
export PYTHON="$folder/venv/bin/python" TRY="$folder/try.py"
try() {
    export HOME="$folder/$1" XDG_RUNTIME_DIR="$folder/$1" XDG_DATA_HOME="$folder/$1" XDG_CONFIG_HOME="$folder/$1"
    mkdir -p "$HOME/keyrings"
    chmod 700 "$HOME"
    printf Default >"$HOME/keyrings/default"
    printf '[keyring]\ndisplay-name=Default\nctime=0\nmtime=0\nlock-on-idle=false\nlock-after=false\n' >"$HOME/keyrings/Default.keyring"
    timeout 60 dbus-run-session -- sh "$folder/session" store "$2" 2>>"$folder/messages"
    echo "$1:"
    timeout 60 dbus-run-session -- sh "$folder/session" get 2>>"$folder/messages"
}
cat >"$folder/expected" <<'END'
one line:
  get_password first 'one line'
  get_password second 'token'
JSON:
  get_password first InitError
  get_password second InitError
keyring was in an invalid or unrecognized format
token with its end:
  get_password first 'one line'
  get_password second 'token'
END
{
    try 'one line' 'token'
    try 'JSON' '{
  "sharedSecret": "secret"
}'
    try 'token with its end' 'token
password_expiry_utc=1767225600'
} >"$folder/seen"

cat "$folder/seen"
diff "$folder/expected" "$folder/seen" >&2 || {
    echo "this is no longer as it was found" >&2
    exit 1
}
