#!/bin/sh
# A secret that was deleted through keyring's chain of backends can still be read through it.
#
# keyring 25.7.0 with keyrings.alt 5.0.2. Without a configured backend, keyring uses all usable ones as a chain. The chain
# reads from the first backend that has the secret and stores in the first that can, but it deletes in the first that has
# the secret, too, and in no other. If an older secret is in a later backend (stored before the first one was installed),
# `get_password` after a successful `delete_password` returns that older secret.
set -eu

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check keyring==25.7.0 keyrings.alt==5.0.2

cat >"$folder/try.py" <<'EOF'
from keyring.backends.chainer import ChainerBackend
from keyrings.alt.file import PlaintextKeyring


class Later(PlaintextKeyring):
    filename = "later"
    priority = 8


class First(PlaintextKeyring):
    filename = "first"
    priority = 9


chain = ChainerBackend()
Later().set_password("service", "user", "old")
chain.set_password("service", "user", "new")
print("stored:", chain.get_password("service", "user"))
chain.delete_password("service", "user")
print("after delete_password:", chain.get_password("service", "user"))
EOF
cat >"$folder/expected" <<'EOF'
stored: new
after delete_password: old
EOF
HOME=$folder XDG_DATA_HOME=$folder "$folder/venv/bin/python" "$folder/try.py" >"$folder/seen"

cat "$folder/seen"
diff "$folder/expected" "$folder/seen" >&2 || {
    echo "this is no longer as it was found" >&2
    exit 1
}
