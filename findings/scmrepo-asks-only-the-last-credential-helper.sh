#!/bin/sh
# If a section of git's configuration has several credential helpers, DVC asks only the last one.
#
# scmrepo 3.6.2, the library through which DVC fetches over https, beside git 2.39.5. gitcredentials(7) says that each of several
# helpers is tried in turn, and people configure a cache before a helper that is slow or opens a browser (`helper = cache`, then
# `helper = oauth`). scmrepo reads one `helper` of each section, so DVC never asks the cache. If the last helper does not know
# the host, DVC has no credential, although `git clone` of the same URL works.
set -eu

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check scmrepo==3.6.2

export HOME="$folder" XDG_CONFIG_HOME="$folder" GIT_CONFIG_NOSYSTEM=1 GIT_TERMINAL_PROMPT=0
unset GIT_CONFIG_GLOBAL GIT_ASKPASS SSH_ASKPASS
cd "$folder"
cat >.gitconfig <<'END'
[credential "https://git.example"]
	helper = "!echo first >>ran; echo username=user; echo password=secret; :"
	helper = "!echo second >>ran; :"
END
cat >try.py <<'END'
from scmrepo.git.credentials import Credential, CredentialNotFoundError

try:
    print("password=" + Credential(url="https://git.example/a/b").fill(interactive=False).password)
except CredentialNotFoundError:
    print("not found")
END
cat >expected <<'END'
git: password=secret; ran: first
scmrepo: not found; ran: second
END
{
    echo "git: $(printf 'url=https://git.example/a/b\n\n' | git credential fill | grep password); ran: $(paste -sd ' ' ran)"
    rm ran
    echo "scmrepo: $(venv/bin/python try.py); ran: $(paste -sd ' ' ran)"
} >seen

cat seen
diff expected seen >&2 || {
    echo "this is no longer as it was found" >&2
    exit 1
}
