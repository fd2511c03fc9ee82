#!/bin/sh
# If a script adds a table beside a dotted key, tomlkit writes the keys that follow into another table.
#
# tomlkit 0.15.2, read back with CPython's tomllib. Scripts edit configuration with tomlkit because it keeps comments and layout.
# One expects that the written file has the data that the script sees. tomlkit writes the added table before the rest of the rule
# and names it [claims.job] instead of [trust.claims.job]. So the file has a second `claims` beside the rules, and the keys that
# follow belong to it. The file is valid TOML, and tomlkit reports no error. If `claims` is an inline table, the data is kept. The
# documentation adds tables in this way and names no limit. Similar losses were reported and fixed in 2026, for example
# https://github.com/python-poetry/tomlkit/pull/549. A script should read back what it wrote and compare.
set -eu

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check tomlkit==0.15.2

cat >"$folder/try.py" <<'EOF'
import tomllib

import tomlkit

for claims in 'claims = { project = "7" }', 'claims.project = "7"':
    document = tomlkit.parse(f'[[trust]]\n{claims}\nallow = ["acme/widgets"]\n')
    document["trust"][0]["claims"]["job"] = {"name": "build"}
    print(claims)
    print("  the script sees:", document.unwrap())
    print("  tomllib reads:", tomllib.loads(tomlkit.dumps(document)))
EOF
cat >"$folder/expected" <<'EOF'
claims = { project = "7" }
  the script sees: {'trust': [{'claims': {'project': '7', 'job': {'name': 'build'}}, 'allow': ['acme/widgets']}]}
  tomllib reads: {'trust': [{'claims': {'project': '7', 'job': {'name': 'build'}}, 'allow': ['acme/widgets']}]}
claims.project = "7"
  the script sees: {'trust': [{'claims': {'project': '7', 'job': {'name': 'build'}}, 'allow': ['acme/widgets']}]}
  tomllib reads: {'trust': [{'claims': {'project': '7'}}], 'claims': {'job': {'name': 'build', 'allow': ['acme/widgets']}}}
EOF
HOME=$folder "$folder/venv/bin/python" "$folder/try.py" >"$folder/seen"

cat "$folder/seen"
diff "$folder/expected" "$folder/seen" >&2 || {
    echo "this is no longer as it was found" >&2
    exit 1
}
