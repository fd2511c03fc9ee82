#!/bin/sh
# If the backend of Python's keyring is keyring-pass, it keeps the first line of a secret and drops the others.
#
# keyring-pass 0.9.3 with keyring 25.7.0 and pass 1.7.4, beside the backends of keyrings.alt 5.0.2 and keyrings.cryptfile 1.3.9. One
# expects that `get_password` returns what `set_password` was given. keyring-pass stores the text up to the first line break and
# reports no error, and it returns the first line of an entry that `pass` shows with all its lines. The author left several lines
# out on purpose (https://github.com/nazarewk/keyring_pass/issues/13), but the documentation does not mention it. A key in PEM or
# an indented JSON file is lost in this way, and the program notices it when it needs the secret. It should store one line, or
# read the secret back and compare.
#
# Needs gpg and apt-get of Debian 12.
set -eu

folder=$(mktemp -d)
trap 'gpgconf --kill all; rm -rf "$folder"' EXIT
export HOME="$folder" XDG_CONFIG_HOME="$folder" XDG_DATA_HOME="$folder" GNUPGHOME="$folder/gnupg"
export PASSWORD_STORE_DIR="$folder/store"
cd "$folder"
apt-get download pass=1.7.4-6 tree >/dev/null 2>&1
for package in *.deb; do dpkg-deb --extract "$package" debian; done
export PATH="$folder/debian/usr/bin:$PATH"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check \
    keyring-pass==0.9.3 keyring==25.7.0 keyrings.alt==5.0.2 keyrings.cryptfile==1.3.9
mkdir -m 700 gnupg
gpg --batch --quiet --passphrase '' --quick-generate-key user@git.example 2>/dev/null
pass init user@git.example >/dev/null

cat >try.py <<'END'
import subprocess

import keyring_pass
import keyrings.alt.file
import keyrings.cryptfile.cryptfile

SECRET = '{\n  "clientKey": "key",\n  "sharedSecret": "secret"\n}'
encrypted = keyrings.cryptfile.cryptfile.CryptFileKeyring()
encrypted.keyring_key = "password"
for backend in keyrings.alt.file.PlaintextKeyring(), encrypted, keyring_pass.PasswordStoreBackend():
    backend.set_password("service", "user", SECRET)
    print(f"{type(backend).__name__}: {backend.get_password('service', 'user')!r}")
entry = "python-keyring/service/user"
print("pass shows:", subprocess.check_output(["pass", "show", entry], text=True).split("\n"))
subprocess.run(["pass", "insert", "--multiline", "--force", entry], input=SECRET, text=True, stdout=subprocess.DEVNULL)
print("pass shows after its own insert:", subprocess.check_output(["pass", "show", entry], text=True) == SECRET)
print(f"{type(backend).__name__} after that: {backend.get_password('service', 'user')!r}")
END
cat >expected <<'END'
PlaintextKeyring: '{\n  "clientKey": "key",\n  "sharedSecret": "secret"\n}'
CryptFileKeyring: '{\n  "clientKey": "key",\n  "sharedSecret": "secret"\n}'
PasswordStoreBackend: '{'
pass shows: ['{', '']
pass shows after its own insert: True
PasswordStoreBackend after that: '{'
END
venv/bin/python try.py >seen

cat seen
diff expected seen >&2 || {
    echo "this is no longer as it was found" >&2
    exit 1
}
