#!/bin/sh
# Git stops at a boolean setting of a credential that is written without a value.
#
# git 2.39.5. git-config(1) says that a boolean setting may be written as its name alone, which means true. Git reads
# `[http] sslVerify` so. `[credential] useHttpPath`, which is a boolean as well, ends every command that needs a credential
# with "fatal: bad config variable". `git config --type=bool --get` prints true for both.
set -eu

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
export GIT_CONFIG_GLOBAL="$folder/config" GIT_CONFIG_NOSYSTEM=1 GIT_TERMINAL_PROMPT=0
printf '[http]\n\tsslVerify\n[credential]\n\tuseHttpPath\n\thelper = "!echo password=x; echo username=y; :"\n' >"$folder/config"
cat >"$folder/expected" <<'END'
true
true
error: missing value for 'credential.usehttppath'
fatal: bad config variable 'credential.usehttppath' in file 'config' at line 4
status 128
END
{
    git config --type=bool --get http.sslVerify
    git config --type=bool --get credential.useHttpPath
    cd "$folder"
    status=0
    printf 'protocol=https\nhost=bitbucket.org\n\n' | git credential fill 2>&1 | sed "s|$folder/||" || status=$?
    printf 'protocol=https\nhost=bitbucket.org\n\n' | git credential fill >/dev/null 2>&1 || status=$?
    echo "status $status"
} >"$folder/seen"

cat "$folder/seen"
diff "$folder/expected" "$folder/seen" >&2 || {
    echo "this is no longer as it was found" >&2
    exit 1
}
