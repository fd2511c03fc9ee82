#!/bin/sh
# giturlparse writes the workspace of a Bitbucket URL into its https URL as the user name.
#
# giturlparse 0.16.0 with git 2.39.5. One expects that `url2https` of https://bitbucket.org/workspace/repository.git is that URL,
# as for GitHub and GitLab. In 2013, Bitbucket's clone URL of one's own repository was https://person@bitbucket.org/person/...
# (https://github.com/libgit2/libgit2/pull/1298), and giturlparse still makes this form, even if the given URL has another user.
# A workspace cannot log in, but git asks its helpers for the credential of that user. git-credential-store, which compares user
# names, has none, so a clone of the new URL fails although a clone of the given URL works. The documentation shows new URLs only
# for GitHub.
set -eu

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
export HOME="$folder" XDG_CONFIG_HOME="$folder" GIT_CONFIG_NOSYSTEM=1 GIT_TERMINAL_PROMPT=0
unset GIT_CONFIG_GLOBAL GIT_ASKPASS SSH_ASKPASS
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check giturlparse==0.16.0

git config --global credential.helper store
printf 'https://x-token-auth:secret@%s\n' bitbucket.org github.com gitlab.com >"$folder/.git-credentials"
# find_password URL: the password that git's helpers have for it.
find_password() {
    printf 'url=%s\n\n' "$1" | git credential fill 2>/dev/null | grep password || echo "no password"
}
for given in \
    https://github.com/workspace/repository.git \
    https://gitlab.com/workspace/repository.git \
    git@bitbucket.org:workspace/repository.git \
    https://bitbucket.org/workspace/repository.git \
    https://x-token-auth@bitbucket.org/workspace/repository.git; do
    made=$("$folder/venv/bin/python" -c 'import sys, giturlparse; print(giturlparse.parse(sys.argv[1]).url2https)' "$given")
    echo "$given"
    echo "  becomes $made: $(find_password "$made")"
done >"$folder/seen"
cat >"$folder/expected" <<'END'
https://github.com/workspace/repository.git
  becomes https://github.com/workspace/repository.git: password=secret
https://gitlab.com/workspace/repository.git
  becomes https://gitlab.com/workspace/repository.git: password=secret
git@bitbucket.org:workspace/repository.git
  becomes https://workspace@bitbucket.org/workspace/repository.git: no password
https://bitbucket.org/workspace/repository.git
  becomes https://workspace@bitbucket.org/workspace/repository.git: no password
https://x-token-auth@bitbucket.org/workspace/repository.git
  becomes https://workspace@bitbucket.org/workspace/repository.git: no password
END

cat "$folder/seen"
diff "$folder/expected" "$folder/seen" >&2 || {
    echo "this is no longer as it was found" >&2
    exit 1
}
