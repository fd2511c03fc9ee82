#!/bin/sh
# If a server refuses a credential, Cargo does not tell git's credential helper, and sends the same credential each time.
#
# Cargo 1.65 of Debian 12 with libgit2 1.5.1, beside git 2.39.5; Cargo 1.95 does the same. Cargo asks the helpers of git's
# configuration itself. One expects that it also lets them erase what the server refused, as git does, so that a helper with a
# cache gets a new token. Cargo runs a helper with `get` alone. After a cached token was revoked, each `cargo` command fails until
# somebody runs git. Cargo's documentation says that it does not ask for passwords, and nothing about refused ones. Its error
# suggests `net.git-fetch-with-cli`, with which Cargo runs git.
#
# Needs apt-get of Debian 12. Instead of the Rust compiler, Cargo gets a script that prints the compiler's version.
set -eu

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
export HOME="$folder" XDG_CONFIG_HOME="$folder" GIT_CONFIG_NOSYSTEM=1 GIT_TERMINAL_PROMPT=0
unset GIT_CONFIG_GLOBAL GIT_ASKPASS SSH_ASKPASS
cd "$folder"
apt-get download cargo=0.66.0+ds1-1 libcurl3-gnutls libgit2-1.5 libhttp-parser2.9 libmbedcrypto7 libmbedtls14 libmbedx509-1 \
    libssh2-1 >/dev/null 2>&1
for package in *.deb; do dpkg-deb --extract "$package" debian; done

mkdir -p project/src
touch project/src/lib.rs
cat >rustc <<'END'
#!/bin/sh
printf 'rustc 1.63.0\nhost: x86_64-unknown-linux-gnu\nrelease: 1.63.0\n'
END
cat >helper <<'END'
#!/bin/sh
echo "$1" >>"$HOME/asked"
case $1 in
get) echo username=user; if [ -e "$HOME/erased" ]; then echo password=new; else echo password=revoked; fi ;;
erase) touch "$HOME/erased" ;;
esac
END
chmod +x rustc helper
git config --global credential.helper "$folder/helper"

cat >try.py <<'END'
import base64
import http.server
import os
import subprocess
import threading
from pathlib import Path


class Server(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        _, _, credential = self.headers.get("Authorization", "").partition(" ")
        if credential:
            received.append(base64.b64decode(credential).decode())
        self.send_response(404 if "user:new" in received else 401)
        self.send_header("WWW-Authenticate", 'Basic realm="git"')
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


received: list[str] = []
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
threading.Thread(target=server.serve_forever, daemon=True).start()
url = f"http://localhost:{server.server_port}/repository"
folder = Path(os.environ["HOME"])
(folder / "project/Cargo.toml").write_text(
    f'[package]\nname = "project"\nversion = "1.0.0"\n[dependencies]\ndependency = {{ git = "{url}" }}\n'
)
os.environ |= {"RUSTC": str(folder / "rustc"), "NO_PROXY": "localhost", "no_proxy": "localhost"}
libraries = {"LD_LIBRARY_PATH": str(*folder.glob("debian/usr/lib/*-linux-gnu"))}
cargo = [folder / "debian/usr/bin/cargo", "generate-lockfile"]
for name, command, settings in (
    ("git", ["git", "ls-remote", url], {}),
    ("cargo", cargo, libraries),
    ("cargo with git-fetch-with-cli", cargo, libraries | {"CARGO_NET_GIT_FETCH_WITH_CLI": "true"}),
):
    (folder / "erased").unlink(missing_ok=True)
    for run in "first", "second":
        received.clear()
        (folder / "asked").write_text("")
        subprocess.run(command, cwd="project", env=os.environ | settings, capture_output=True, timeout=60)
        asked = ", ".join((folder / "asked").read_text().split())
        print(f"{name}, {run} run: sends {', '.join(received)}; runs the helper with {asked}")
END
cat >expected <<'END'
git, first run: sends user:revoked; runs the helper with get, erase
git, second run: sends user:new; runs the helper with get
cargo, first run: sends user:revoked; runs the helper with get
cargo, second run: sends user:revoked; runs the helper with get
cargo with git-fetch-with-cli, first run: sends user:revoked; runs the helper with get, erase
cargo with git-fetch-with-cli, second run: sends user:new; runs the helper with get
END
python3 try.py >seen

cat seen
diff expected seen >&2 || {
    echo "this is no longer as it was found" >&2
    exit 1
}
