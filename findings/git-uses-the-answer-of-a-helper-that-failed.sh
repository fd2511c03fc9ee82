#!/bin/sh
# Git uses the answer of a credential helper that failed, and asks no further helper.
#
# git 2.39.5; 2.30.2, 2.47.3 and 2.55.0 do the same. One expects that a program that fails has given no answer. Git reads the
# helper's output first and then ignores how the helper ended, even if a signal killed it. If the output has a user name and a
# password, git sends them to the server. gitcredentials(7) says that a helper that fails may write to stderr, and nothing about
# its exit status. scmrepo 3.6.2, which asks the helpers for DVC, discards the answer of a helper that failed. A helper that may
# fail halfway should print its whole answer as its last step.
set -eu

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
export GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_NOSYSTEM=1 GIT_TERMINAL_PROMPT=0
cd "$folder"

# ask END: the password that git uses, and the helpers that it ran, if the first of two helpers ends with END.
ask() {
    : >ran
    printf 'protocol=https\nhost=git.example\n\n' |
        git -c credential.helper="!echo first >>'$folder/ran'; echo username=x; echo password=half; $1; :" \
            -c credential.helper="!echo second >>'$folder/ran'; echo username=x; echo password=whole; :" \
            credential fill >answer 2>/dev/null
    echo "$1: $(grep password answer); ran: $(paste -sd ' ' ran)"
}
{
    ask 'exit 0'
    ask 'exit 1'
    # shellcheck disable=SC2016  # this is for the helper's shell
    ask 'kill -9 $$'
} >seen
cat >expected <<'END'
exit 0: password=half; ran: first
exit 1: password=half; ran: first
kill -9 $$: password=half; ran: first
END

cat seen
diff expected seen >&2 || {
    echo "this is no longer as it was found" >&2
    exit 1
}
