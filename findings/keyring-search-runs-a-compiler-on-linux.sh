#!/bin/sh
# To find a backend on Linux, keyring runs gcc and ld from PATH, three times.
#
# keyring 25.7.0, CPython 3.11. keyring imports all its backends to find the best one. The macOS backend's `api` module looks
# for Security, CoreServices and Foundation by `ctypes.util.find_library`, which on Linux asks ldconfig, then `gcc -l…`,
# then `ld -l…`. `keyring.core.load_keyring(NAME)` of another backend runs none of them.
set -eu

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check keyring==25.7.0

mkdir "$folder/programs"
for name in gcc ld; do
    # shellcheck disable=SC2016  # this is for the program that is written
    printf '#!/bin/sh\necho "%s ${*##*/}" | sed "s/ .* -l/ -l/" >>"%s/ran"\nexit 1\n' "$name" "$folder" \
        >"$folder/programs/$name"
    chmod +x "$folder/programs/$name"
done
PATH=$folder/programs:$PATH "$folder/venv/bin/python" -c 'import keyring; keyring.get_keyring()'

cat >"$folder/expected" <<'EOF'
gcc -lCoreServices
gcc -lFoundation
gcc -lSecurity
ld -lCoreServices
ld -lFoundation
ld -lSecurity
EOF
sort "$folder/ran" >"$folder/seen"

cat "$folder/seen"
diff "$folder/expected" "$folder/seen" >&2 || {
    echo "this is no longer as it was found" >&2
    exit 1
}
