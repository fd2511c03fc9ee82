"""``python -m git_credential_bbjwt``: the same as the installed command."""

import sys

from git_credential_bbjwt.entry import main

main(sys.argv[1:])
