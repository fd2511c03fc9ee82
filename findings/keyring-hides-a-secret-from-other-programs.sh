#!/bin/sh
# After Python's keyring has set a secret that a Node program stored, the Node program can no longer read it.
#
# keyring 25.7.0 with SecretStorage 3.5.0, npm's @napi-rs/keyring 2.1.2 and gnome-keyring 42.1. Both libraries store a secret in
# the Secret Service with the attributes `service` and `username`, and each reads what the other stored. When keyring stores, it
# adds the attribute `application`. The Secret Service replaces only an item that has all attributes of the new one, so keyring
# adds a second item beside the first. keyring then reads the newer one, but @napi-rs/keyring fails because two items match, and
# so does its `setPassword`. In the other order nothing is lost, because @napi-rs/keyring replaces the item of keyring.
# https://github.com/jaraco/keyring/issues/345 (closed) describes the two items for two Python programs.
#
# Needs node, npm, dbus-run-session, dbus-send and gnome-keyring-daemon. The keyring and its bus are made in a temporary folder.
set -eu

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
export HOME="$folder" XDG_RUNTIME_DIR="$folder" XDG_DATA_HOME="$folder" XDG_CONFIG_HOME="$folder"
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check keyring==25.7.0 SecretStorage==3.5.0
npm install --silent --no-audit --no-fund --prefix "$folder" @napi-rs/keyring@2.1.2 >/dev/null

cat >"$folder/node.js" <<'EOF'
const { Entry } = require("@napi-rs/keyring");
const [method, user, ...secret] = process.argv.slice(2);
try {
  console.log("  node", method, user + ":", new Entry("service", user)[method](...secret) ?? "done");
} catch (problem) {
  console.log("  node", method, user + ":", problem.message.split(":")[0]);
}
EOF
cat >"$folder/python.py" <<'EOF'
import sys

from keyring.backends.SecretService import Keyring

method, user, *secret = sys.argv[1:]
print("  python", method, user + ":", getattr(Keyring(), method)("service", user, *secret) or "done")
EOF
cat >"$folder/session" <<'EOF'
printf password | gnome-keyring-daemon --foreground --unlock --components=secrets >/dev/null 2>&1 &
cd "$HOME"
until dbus-send --print-reply --dest=org.freedesktop.DBus / org.freedesktop.DBus.NameHasOwner \
    string:org.freedesktop.secrets | grep -q true; do sleep 0.1; done
node() { timeout 20 "$NODE" node.js "$@"; }
python() { timeout 20 venv/bin/python python.py "$@"; }
echo "python stores first:"
python set_password A one
node getPassword A
node setPassword A two
python get_password A
node getPassword A
echo "node stores first:"
node setPassword B one
python get_password B
python set_password B two
node getPassword B
node setPassword B three
kill "$!"
EOF
cat >"$folder/expected" <<'EOF'
python stores first:
  python set_password A: done
  node getPassword A: one
  node setPassword A: done
  python get_password A: two
  node getPassword A: two
node stores first:
  node setPassword B: done
  python get_password B: one
  python set_password B: done
  node getPassword B: Entry is matched by 2 credentials
  node setPassword B: Entry is matched by 2 credentials
EOF
NODE=$(command -v node) timeout 120 dbus-run-session -- sh "$folder/session" >"$folder/seen"

cat "$folder/seen"
diff "$folder/expected" "$folder/seen" >&2 || {
    echo "this is no longer as it was found" >&2
    exit 1
}
