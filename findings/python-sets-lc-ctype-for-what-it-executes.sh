#!/bin/sh
# A program that Python executes in its place gets an LC_CTYPE that the caller did not set, even with `python -I`.
#
# CPython 3.7 and later (PEP 538). If the locale is C, the interpreter sets LC_CTYPE=C.UTF-8 in its own environment before any
# code runs. `-I` and `-E` do not prevent it, because the variable that switches it off (PYTHONCOERCECLOCALE) is ignored
# then. A wrapper that ends with os.execvp hands it on; the caller's environment is in /proc/self/environ.
set -eu

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python=$(python3 -c 'import sys; print(sys.executable)')
run='import os; os.execv("/usr/bin/env", ["env"])'
env -i "$python" -I -c "$run" >"$folder/seen"
echo "LC_CTYPE=C.UTF-8" >"$folder/expected"

cat "$folder/seen"
diff "$folder/expected" "$folder/seen" >&2 || {
    echo "this is no longer as it was found" >&2
    exit 1
}
