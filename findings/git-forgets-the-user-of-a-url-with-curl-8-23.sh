#!/bin/sh
# With libcurl 8.23.0, git does not tell its credential helpers the user name of the URL, and may log in as another user.
#
# git 2.39.5 with libcurl 8.23.0, beside libcurl 8.22.0; git 2.47.3 and 2.55.0 do the same with 8.23.0. git-credential(1) says that
# helpers get the user name if there is one, for example from the URL, and people choose one of their accounts in this way. Since
# 8.23.0, libcurl reports the effective URL without credentials (https://github.com/curl/curl/pull/23016). Git compares it with
# the URL that it requested, takes the difference for a redirect, and goes on with the URL that has no user name.
# git-credential-store then gives the first account of the host. If the server refuses it, git erases that account's password,
# which is valid. `credential.username` still reaches the helpers.
#
# The libraries are those in the wheels of pycurl 7.48.0 and 7.49.0 for Linux; git finds them by LD_LIBRARY_PATH.
set -eu

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
for version in 7.48.0 7.49.0; do
    "$folder/venv/bin/pip" install --quiet --disable-pip-version-check --only-binary :all: --target "$folder/$version" \
        "pycurl==$version"
    libraries="$folder/$version/pycurl.libs"
    ln -s "$libraries"/libcurl-*.so.4.* "$libraries/libcurl-gnutls.so.4"
done

cat >"$folder/helper" <<'END'
#!/bin/sh
{ echo "$1"; grep ^username=; } | paste -sd ' ' >>"$HOME/asked"
END
chmod +x "$folder/helper"
cat >"$folder/try.py" <<'END'
import base64
import http.server
import os
import subprocess
import threading
from pathlib import Path


class Server(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        _, _, credential = self.headers.get("Authorization", "").partition(" ")
        received.append(base64.b64decode(credential).decode() or "no credential")
        self.send_response(404 if received[-1] == "work:secret" else 401)
        self.send_header("WWW-Authenticate", 'Basic realm="git"')
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


received: list[str] = []
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
threading.Thread(target=server.serve_forever, daemon=True).start()
address = f"127.0.0.1:{server.server_port}"
folder = Path(os.environ["HOME"])
asked = folder / "asked"
(folder / ".gitconfig").write_text(f"[credential]\n\thelper = {folder}/helper\n\thelper = store\n")
store = folder / ".git-credentials"
for curl, pycurl in ("8.22.0", "7.48.0"), ("8.23.0", "7.49.0"):
    for setting, url in ("", f"http://work@{address}"), ("credential.username=work", f"http://{address}"):
        received.clear()
        asked.write_text("")
        store.write_text(f"http://home:secret@{address}\nhttp://work:secret@{address}\n")
        subprocess.run(
            ["git", *(["-c", setting] if setting else []), "ls-remote", f"{url}/workspace/repository.git"],
            env=os.environ | {"LD_LIBRARY_PATH": f"{folder}/{pycurl}/pycurl.libs"},
            capture_output=True,
            timeout=60,
        )
        print(f"libcurl {curl}, {setting or 'user name in the URL'}")
        print("  the helper runs with", ", ".join(asked.read_text().splitlines()))
        print("  git sends", ", ".join(received))
        print("  the store has", " ".join(line[7:11] for line in store.read_text().splitlines()))
END
cat >"$folder/expected" <<'END'
libcurl 8.22.0, user name in the URL
  the helper runs with get username=work
  git sends no credential, work:, work:secret
  the store has home work
libcurl 8.22.0, credential.username=work
  the helper runs with get username=work
  git sends no credential, work:secret
  the store has home work
libcurl 8.23.0, user name in the URL
  the helper runs with get, erase username=home
  git sends no credential, work:, home:secret
  the store has work
libcurl 8.23.0, credential.username=work
  the helper runs with get username=work
  git sends no credential, work:secret
  the store has home work
END
env -u GIT_CONFIG_GLOBAL -u GIT_ASKPASS -u SSH_ASKPASS HOME="$folder" XDG_CONFIG_HOME="$folder" GIT_CONFIG_NOSYSTEM=1 \
    GIT_TERMINAL_PROMPT=0 NO_PROXY=127.0.0.1 no_proxy=127.0.0.1 \
    python3 "$folder/try.py" >"$folder/seen"

cat "$folder/seen"
diff "$folder/expected" "$folder/seen" >&2 || {
    echo "this is no longer as it was found" >&2
    exit 1
}
