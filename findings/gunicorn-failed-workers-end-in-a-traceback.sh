#!/bin/sh
# If several workers cannot start, gunicorn sometimes ends with a traceback and status 1 instead of its message and status 3.
#
# gunicorn 27.0.1. A worker that cannot start exits with status 3, and the arbiter halts with status 3 ("Worker failed to
# boot"). While it halts it reaps the other workers, and raises HaltServer again, which nobody catches, if another of them
# has exited with status 3, too (arbiter.py: `halt` calls `stop`, `stop` calls `reap_workers`). A supervisor that reads the
# status sees another cause. It happens in about every third start of an application that cannot be loaded.
set -eu

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check gunicorn==27.0.1

echo 'raise SystemExit(3)' >"$folder/app.py"
# ends WORKERS: the status and whether there is a traceback, of the first of 30 runs that does not end as it should.
ends() {
    for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30; do
        status=0 traceback=no
        "$folder/venv/bin/gunicorn" --no-control-socket --chdir "$folder" --bind "unix:$folder/socket" --workers "$1" \
            app:application 2>"$folder/log" || status=$?
        if grep -q '^Traceback' "$folder/log"; then traceback=yes; fi
        [ "$status" = 3 ] || break
    done
    echo "$1 failed: status $status, traceback $traceback"
}
for workers in 1 8; do ends "$workers"; done >"$folder/seen"
cat >"$folder/expected" <<'EOF'
1 failed: status 3, traceback no
8 failed: status 1, traceback yes
EOF

cat "$folder/seen"
diff "$folder/expected" "$folder/seen" >&2 || {
    echo "this is no longer as it was found" >&2
    exit 1
}
