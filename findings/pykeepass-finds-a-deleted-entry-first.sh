#!/bin/sh
# pykeepass returns the deleted entry instead of the one that replaced it.
#
# pykeepass 4.2.0. KeePass programs delete an entry by moving it to the recycle bin of the database, and leave the bin out when
# they search. `find_entries` searches the bin, too, which its documentation does not mention. With `first=True` it returns the
# first entry of the file, and the bin may come before the group of the new entry. A script that reads a token by its title
# continues to use the old token after someone deleted its entry and made a new one.
set -eu

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check pykeepass==4.2.0

cat >"$folder/try.py" <<'EOF'
import os
from pathlib import Path

from pykeepass import PyKeePass, create_database

path = Path(os.environ["HOME"]) / "database.kdbx"
database = create_database(path, password="password")
old = database.add_entry(database.root_group, "token", "user", "old")
database.trash_entry(old)
group = database.add_group(database.root_group, "group")
database.add_entry(group, "token", "user", "new")
database.save()

database = PyKeePass(path, password="password")
for entry in database.find_entries(title="token"):
    print("in", entry.group.name + ":", entry.password)
print("first:", database.find_entries(title="token", first=True).password)
EOF
cat >"$folder/expected" <<'EOF'
in Recycle Bin: old
in group: new
first: old
EOF
HOME=$folder "$folder/venv/bin/python" "$folder/try.py" >"$folder/seen"

cat "$folder/seen"
diff "$folder/expected" "$folder/seen" >&2 || {
    echo "this is no longer as it was found" >&2
    exit 1
}
