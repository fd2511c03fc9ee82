#!/bin/sh
# Install git-credential-bbjwt in an isolated environment, and switch it on in git's configuration.
set -eu

# Keep only the absolute entries of PATH. Until then, only the shell's own commands may run.
entries=$PATH:
# shellcheck disable=SC2123  # it is filled again
PATH=''
while [ -n "$entries" ]; do
    case $entries in /*) PATH=${PATH:+$PATH:}${entries%%:*} ;; esac
    entries=${entries#*:}
done
export PATH="${PATH:-/usr/local/bin:/usr/bin:/bin}"

usage() {
    cat <<'EOF'
usage: ./install.sh [--system] [--wheelhouse DIR] [--no-configure] [--with PACKAGE]... [--with-broker] [--latest]
                    [--insecure-storage] [FILE]
       ./install.sh --demo [--wheelhouse DIR] [--latest]
       ./install.sh --uninstall [--system]
       ./install.sh --fill-wheelhouse DIR

FILE             the payload of the app's `installed` callback: also registers that installation
--system         for all users: /opt and /usr/local/bin instead of your own folders (needs root)
--no-configure   do not change git's configuration
--insecure-storage
                 store the secret of FILE in a file of mode 0600, if there is no keyring
--with PACKAGE   also install a keyring backend, such as keyring-pass; it is not locked. Upgrades keep it
--with-broker    also install the packages of the https broker. Upgrades keep them
--wheelhouse DIR install from the wheels in DIR, without a network
--fill-wheelhouse DIR
                 download the locked wheels for machines like this one into DIR
--latest         use the newest packages that pyproject.toml allows; they are not locked
--demo           try it without an account: a Bitbucket emulator on this machine; leaves nothing behind
--uninstall      remove the command, its settings in git, registered installations and cached tokens
EOF
}

# Whatever the caller's umask is, only the user can write to new files.
umask "$(printf '%04o' "$(((0$(umask) | 022) & 077))")"

say() { printf '%s\n' "$*" >&2; }
fail() {
    say "install.sh: error: $1"
    shift
    for hint in "$@"; do say "hint: $hint"; done
    exit 1
}

name=git-credential-bbjwt
case $0 in
install.sh | */install.sh) ;;
*) fail "this script needs the folder that it belongs to" "run it there: ./install.sh" ;;
esac
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
[ -d "$here/git_credential_bbjwt" ] || fail "$0 is not in the folder that it belongs to" "run it there: ./install.sh"
version=$(sed -n 's/^__version__ = "\(.*\)"$/\1/p' "$here/git_credential_bbjwt/__init__.py")

# as_typed WORD: print the word for a shell, quoted if necessary.
as_typed() {
    case $1 in
    *[!A-Za-z0-9_./:@%+=,-]*) printf "'%s'" "$(printf %s "$1" | sed "s/'/'\\\\''/g")" ;;
    *) printf %s "$1" ;;
    esac
}

# Print the first suitable Python: the one PYTHON names, the system's, then the newest.
find_python() {
    case ${PYTHON-} in
    /*) ;;
    */*) fail "PYTHON=$PYTHON is relative to this folder" "set PYTHON to an absolute path, or to a name on PATH" ;;
    esac
    for candidate in ${PYTHON:+"$PYTHON"} python3 python3.15 python3.14 python3.13 python3.12 python3.11 python3.10; do
        if "$candidate" -I -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
            command -v "$candidate"
            return
        fi
        [ "$candidate" != "${PYTHON-}" ] || fail "$PYTHON is not Python 3.10 or later" "set PYTHON to a newer one"
    done
    fail "no Python 3.10 or later found" "install one, or name it: PYTHON=/path/to/python3 ./install.sh"
}

# Unpack the pip that is bundled with this Python, if there is one. Letting pip install itself takes as long as all the rest.
unpack_pip='
import ensurepip, glob, os, sys, sysconfig, zipfile
folders = os.path.join(os.path.dirname(ensurepip.__file__), "_bundled"), sysconfig.get_config_var("WHEEL_PKG_DIR")
wheels = [wheel for folder in folders if folder for wheel in glob.glob(os.path.join(folder, "pip-*.whl"))]
if not wheels:
    sys.exit(1)
zipfile.ZipFile(wheels[0]).extractall(sysconfig.get_path("purelib"))
'

# make_venv DIR: make an environment with pip.
make_venv() {
    "$python" -I -m venv --without-pip "$1" &&
        { "$1/bin/python" -I -c "$unpack_pip" || "$1/bin/python" -I -m ensurepip; }
}

# make_environment DIR: make an environment, with pip or by uv.
make_environment() {
    say "making an isolated environment with $python ..."
    # pip runs rustc to find its version, and rustup's rustc makes a folder in a home that has none.
    [ -n "${RUSTUP_HOME-}" ] || [ -d "${HOME-}/.rustup" ] || export RUSTUP_HOME="$1/rustup"
    if "$python" -I -c 'import ensurepip, venv' 2>/dev/null; then
        make_venv "$1" || fail "python -m venv failed" "see above; removing $1 and trying again may help"
    elif command -v uv >/dev/null; then
        uv --no-config venv --quiet --python "$python" "$1" || fail "uv venv failed" "see above"
    elif command -v virtualenv >/dev/null; then
        virtualenv --quiet --python "$python" "$1" || fail "virtualenv failed" "see above"
    else
        install_venv
        make_venv "$1" || fail "python -m venv failed although python3-venv is installed" "see above"
    fi
}

# Debian has venv in a separate package. Only an installation by root installs that package; the demo never does.
install_venv() {
    package=$("$python" -I -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')
    lacking="$python cannot make environments: it lacks the venv module"
    if ! command -v apt-get >/dev/null; then
        fail "$lacking" "install your system's package for it, or uv or virtualenv"
    elif [ "$(id -u)" -ne 0 ]; then
        fail "$lacking" "run: sudo apt-get update && sudo apt-get install -y $package"
    elif [ "$mode" != install_it ]; then
        fail "$lacking" "run: apt-get update && apt-get install -y $package"
    fi
    say "$python lacks the venv module: installing $package (Debian's package) ..."
    export DEBIAN_FRONTEND=noninteractive
    if ! shown=$(apt-get update -qq 2>&1 && apt-get install -y -qq "$package" 2>&1); then
        say "$shown"
        fail "apt-get could not install $package" "run: apt-get update && apt-get install -y $package"
    fi
}

has_pip() { "$1/bin/python" -I -c 'import pip' 2>/dev/null; }

# These variables would make pip install into another folder.
unset PIP_TARGET PIP_PREFIX PIP_ROOT

# pip_install DIR ARGUMENT...: install into an environment, by pip or by uv. pip compiles without the columns that tracebacks
# show, which saves a hundredth of a cached answer.
pip_install() {
    into=$1
    shift
    if has_pip "$into"; then
        PIP_USER=0 "$into/bin/python" -I -X no_debug_ranges -m pip install --quiet --no-input \
            --disable-pip-version-check "$@"
    else
        uv --no-config pip install --quiet --compile-bytecode --reinstall-package "$name" --python "$into/bin/python" "$@"
    fi
}

# fill_environment DIR REQUIREMENT...: install packages that are not locked into an environment.
fill_environment() {
    environment_to_fill=$1
    shift
    if [ -n "$wheelhouse" ]; then set -- --no-index --find-links "$wheelhouse" "$@"; fi
    pip_install "$environment_to_fill" "$@" || fail "the packages could not be installed" \
        "check the network, or bring them along: ./install.sh --wheelhouse DIR"
}

locks=$here/git_credential_bbjwt/installed

# fill_locked DIR LOCK [ARGUMENT]...: install exactly the wheels that a lock names. Installing a wheel runs none of its code,
# and its SHA-256 is checked first. A lock is complete, so --no-deps can save a third of the time.
fill_locked() {
    environment_to_fill=$1 lock=$2
    shift 2
    if [ -n "$wheelhouse" ]; then set -- --no-index --find-links "$wheelhouse" "$@"; fi
    pip_install "$environment_to_fill" --no-deps --require-hashes --only-binary :all: "$@" -r "$lock" ||
        fail "the packages that ${lock##*/} names could not be installed" \
            "check the network, or bring them along: ./install.sh --wheelhouse DIR" \
            "if there is no wheel for this machine, use the newest packages, which are not locked: ./install.sh --latest"
}

# Build the project's wheel with the tools in a folder (PEP 517); print the wheel's path.
build_wheel='
import os, sys
with_what, into, sources = sys.argv[1:]
sys.path.insert(0, with_what)
os.chdir(sources)
from hatchling.build import build_wheel
print(os.path.join(into, build_wheel(into)))
'

# Print a requirement that only the given wheel satisfies.
require_wheel='
import hashlib, pathlib, sys
name, wheel = sys.argv[1], pathlib.Path(sys.argv[2])
print(f"{name} @ {wheel.as_uri()}#sha256={hashlib.sha256(wheel.read_bytes()).hexdigest()}")
'

# fill_locked_and_project DIR LOCK: install the locked wheels, and the project's wheel: the wheelhouse's, or one that is
# built with locked tools.
fill_locked_and_project() {
    say "installing the packages of ${2##*/} ..."
    built=$1/build wheel=$(wheel_of_wheelhouse)
    if [ -z "$wheel" ]; then
        # pip would build it with tools that are not locked, so the locked tools are installed into a separate folder.
        fill_locked "$1" "$locks/locked-build.txt" --target "$built/with"
        wheel=$("$1/bin/python" -IB -c "$build_wheel" "$built/with" "$built" "$here") ||
            fail "the project could not be built" "see above; please report it"
    fi
    fill_locked "$1" "$2" "$("$1/bin/python" -I -c "$require_wheel" "$name" "$wheel")"
    rm -rf "$built"
}

# fill_with_project DIR LOCK EXTRA: install the project and its dependencies: the locked ones or, with --latest, the newest.
fill_with_project() {
    if [ -n "$latest" ]; then
        say "installing the newest packages that pyproject.toml allows, as --latest asks for; they are not locked ..."
        fill_environment "$1" "$(project "$3")"
    else
        fill_locked_and_project "$1" "$locks/$2"
    fi
}

# Print the path of the project's wheel in the wheelhouse, if there is one of this version.
wheel_of_wheelhouse() {
    for wheel in ${wheelhouse:+"$wheelhouse/git_credential_bbjwt-$version"-*.whl}; do
        if [ -f "$wheel" ]; then
            printf '%s' "$wheel"
            return
        fi
    done
}

# project EXTRA: print the project's requirement: its name if the wheelhouse has its wheel, otherwise this folder.
project() {
    if [ -n "$(wheel_of_wheelhouse)" ]; then printf '%s' "$name$1==$version"; else printf '%s' "$here$1"; fi
}

# The files to link into the folders of man and of the shells, below a prefix's share.
shared="man/man1/$name.1 bash-completion/completions/$name zsh/site-functions/_$name fish/vendor_completions.d/$name.fish"

# Fail if a path leads through a folder or link whose owner is neither this user nor root, or through a folder in which
# everybody can replace files, or to a place that cannot be written. The first path, unless empty, must be this user's.
check_places='
import os, stat, sys
home, *places = sys.argv[1:]
if os.path.isdir(home) and os.stat(home).st_uid != os.geteuid():
    sys.exit(f"the home folder {home} belongs to another user")
for place in places:
    while not os.path.lexists(place):
        place = os.path.dirname(place)
    if not os.path.isdir(place):
        sys.exit(f"{place} is not a folder")
    if not os.access(place, os.W_OK | os.X_OK):
        sys.exit(f"you cannot write to {place}")
    for path in (place, os.path.realpath(place)):
        while path != "/":
            found = os.lstat(path)
            if found.st_uid not in (0, os.geteuid()):
                sys.exit(f"{path} belongs to another user: nothing is installed through it")
            if not stat.S_ISLNK(found.st_mode) and found.st_mode & stat.S_IWOTH and not found.st_mode & stat.S_ISVTX:
                sys.exit(f"everybody can write to {path}: nothing is installed through it")
            path = os.path.dirname(path)
'

# Make a link, or replace it in one step.
set_link='
import os, sys
target, link = sys.argv[1:]
os.symlink(target, f"{link}.{os.getpid()}")
os.replace(f"{link}.{os.getpid()}", link)
'

# Make a link that names this process, so that two installers never work in the same folder. Fail if another installer works
# there. The link of a process that was killed is replaced.
take_lock='
import os, sys
lock, process = sys.argv[1:]
for _ in range(9):
    try:
        sys.exit(os.symlink(process, lock))
    except FileExistsError:
        other = os.readlink(lock)
    try:
        os.kill(int(other), 0)
    except ProcessLookupError:
        os.unlink(lock)
    else:
        sys.exit(f"process {other} is installing there just now")
'

set_places() {
    if [ -n "$system" ]; then
        [ "$(id -u)" -eq 0 ] || fail "--system needs root" "run: sudo ./install.sh --system"
        umask 022 # All users must be able to run it.
        data=/opt/$name bin=/usr/local/bin share=/usr/local/share level=--system
    else
        case ${HOME-} in
        /) ;;
        /*) HOME=${HOME%/} ;;
        *) fail "HOME is not set to an absolute path" "set it, or use --system" ;;
        esac
        case ${XDG_DATA_HOME-} in
        /*) base=$XDG_DATA_HOME ;;
        *) base=$HOME/.local/share ;; # Relative paths are invalid (XDG Base Directory Specification).
        esac
        own_home=$HOME data=$base/$name bin=$HOME/.local/bin share=$base level=--global
    fi
    case $data in
    *[\"\$\`\\]* | *"
"*) fail "no command can be made in a folder with such a name: $data" "use one without \" \$ \` \\ or a line break" ;;
    esac
    python=$(find_python)
    "$python" -I -c "$check_places" "${own_home-}" "$data" "$bin" "$share" ||
        fail "nothing is installed, nothing removed" "check the owner and the mode: ls -ld" \
            "if HOME is another user's, use your own: sudo -H"
}

# Keep other installers out of the folder until this one ends.
lock_places() {
    mkdir -p "$data"
    "$python" -I -c "$take_lock" "$data/installing" $$ || fail "nothing is changed" "run it again in a minute"
}

# Set `place` to a new folder that is removed at the end.
temporary_folder() {
    case ${TMPDIR-} in /*) ;; *) TMPDIR=/tmp ;; esac
    export TMPDIR
    "$python" -I -c "$check_places" '' "$TMPDIR" ||
        fail "TMPDIR=$TMPDIR is not safe to use" "set TMPDIR to a folder of yours"
    place=$(mktemp -d "$TMPDIR/bbjwt.XXXXXX")
    trap 'rm -rf "$place"' EXIT
    trap 'exit 1' HUP INT TERM
}

# write_launcher ENVIRONMENT: write the command. -I keeps PYTHONPATH and the command's own folder out of its imports. -Xutf8
# (Python's "UTF-8 mode", the default from 3.15) saves 2.5 % of a start, and -S saves 20 %. If more than the cache is needed,
# git_credential_bbjwt/system/site_packages.py loads `site` later. Until then, garbage collection is switched off, and the
# package is imported from its own folder only.
write_launcher() {
    mkdir -p "$bin"
    # Write the command in the environment, because nobody can have prepared a link there. Then move it to its place.
    new=$1/$name.new
    first="#!$1/bin/python -ISXutf8"
    packages_of_it=$("$1/bin/python" -I -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    case $1 in
    *[!A-Za-z0-9/._-]*) short='' ;;
    *) short=yes ;;
    esac
    if [ -z "$short" ] || [ ${#first} -gt 120 ]; then
        # Kernels accept neither blanks nor long paths in a first line. So a shell runs a line that is a string for Python.
        first=$(printf "#!/bin/sh\n''':'\nexec \"%s/bin/python\" -ISXutf8 \"\$0\" \"\$@\"\n'''" "$1")
    fi
    cat >"$new" <<EOF
$first
import gc
import sys

gc.disable()
sys.path.insert(0, "$packages_of_it")
try:
    from git_credential_bbjwt.entry import main

    main(sys.argv[1:])
except KeyboardInterrupt:
    sys.exit(130)
EOF
    chmod 755 "$new"
    rm -f "$bin/$name" # If this were a link to a folder, mv would move the command into that folder.
    mv -f "$new" "$bin/$name"
}

# Fail with a message if a file does not contain payloads. This runs before there is an environment, so it imports only the
# standard library and the modules that read payloads.
check_payload='
import sys
sys.path.insert(0, sys.argv[2])
from git_credential_bbjwt.commands.registration.payload_input import split_payloads
from git_credential_bbjwt.core.failures import CredentialError
from git_credential_bbjwt.core.source import unpacked
from git_credential_bbjwt.installations.payload import parse_payload
try:
    with open(sys.argv[1], "rb") as file:
        data = file.read()
    for payload in split_payloads(unpacked(data) or data):
        parse_payload(payload, sys.argv[1])
except CredentialError as problem:
    sys.exit(f"{problem.what}\nhint: {problem.hint}")
except OSError as problem:
    sys.exit(str(problem))
'

# Print a URL of the first registered workspace, as a pattern for the next command.
registered_url='
import json, sys
for one in json.load(sys.stdin):
    if one.get("registry") and one.get("workspaces"):
        print(one["base_url"].rstrip("/") + "/" + one["workspaces"][0] + "/REPOSITORY")
        break
'

link_shared() {
    for file in $shared; do
        mkdir -p "$share/${file%/*}"
        rm -f "$share/$file"
        ln -s "$1/share/$file" "$share/$file"
    done
}

install_it() {
    set_places
    command -v git >/dev/null || fail "git is not installed" "install git first"
    if [ -n "$payload" ]; then
        "$python" -IB -c "$check_payload" "$payload" "$here" ||
            fail "$payload is not a payload: nothing is installed" "correct it as shown above, then run install.sh again"
    fi
    say "installing $name in $data ..."
    lock_places
    for old in "$data"/environment-*; do
        # Its installer was killed before the end.
        if [ -d "$old" ] && [ ! -e "$old/with" ]; then rm -rf "$old"; fi
    done
    # The new environment does not replace the old one yet, so that an upgrade that fails leaves a working command.
    environment=$data/environment-$(date +%s)-$$
    trap 'rm -rf "$environment" "$data/installing"; rmdir "$data" 2>/dev/null' EXIT
    trap 'exit 1' HUP INT TERM
    cd / # Installers must not find settings or modules in the caller's folder.
    previous=''
    if [ -d "$data/current" ]; then
        previous=$(cd -P "$data/current" && pwd)
        keep_choices "$previous"
    fi
    make_environment "$environment"
    fill_with_project "$environment" "locked${broker:+-broker}.txt" "${broker:+[broker]}"
    if [ -n "$packages" ]; then
        say "installing what --with asked for, which is not locked:$packages ..."
        # shellcheck disable=SC2086  # one word per package
        fill_environment "$environment" $packages
    fi
    if [ -e "$bin/$name" ] && ! is_own_command; then
        say "note: replacing $bin/$name, which another installer made; uninstall that command with its installer"
    fi
    "$environment/bin/python" -I "$environment/bin/$name" --version >/dev/null ||
        fail "the installed command does not start" "see above; please report it"
    printf '%s\n' "$packages" >"$environment/with"
    if [ -n "$broker" ]; then touch "$environment/with-broker"; fi
    write_launcher "$environment"
    link_shared "$environment"
    "$python" -I -c "$set_link" "${environment##*/}" "$data/current"
    trap 'rm -f "$data/installing"' EXIT
    # Commands and brokers that are running import from the previous environment, so it stays until the next upgrade.
    for old in "$data"/environment-*; do
        if [ "$old" != "$environment" ] && [ "$old" != "$previous" ]; then rm -rf "$old"; fi
    done
    say "installed $("$bin/$name" --version) as $bin/$name"
    if [ -n "$broker" ]; then say "the https broker's server is $data/current/bin/gunicorn"; fi
    registered=yes
    if [ -n "$payload" ]; then
        "$bin/$name" register ${system:+--system} ${insecure:+--insecure-storage} "$payload" || registered=''
    fi
    if [ -n "$configure" ]; then
        # An upgrade does not change lines that name this command, because they may be for some workspaces only.
        if [ -n "$payload" ] ||
            ! git config "$level" --get-regexp '^credential\..*helper$' 2>/dev/null | grep -qF "$bin/$name"; then
            # If no installation is registered, the payload names the host.
            BBJWT_INSTALLATION=${payload:-${BBJWT_INSTALLATION-}} "$bin/$name" configure "$level" ||
                say "note: git's configuration is not changed, see above; $name exec -- git clone URL works without it"
        fi
    fi
    next_step
}

# Succeed if the command was made by install.sh: its first lines name the environment.
is_own_command() {
    case $(sed 3q "$bin/$name" 2>/dev/null) in *"$data/"*) ;; *) return 1 ;; esac
}

# keep_choices ENVIRONMENT: keep the packages that --with and --with-broker installed in the previous environment.
keep_choices() {
    if [ -e "$1/with-broker" ]; then broker=yes; fi
    if [ -s "$1/with" ]; then
        # shellcheck disable=SC2013  # one word per package
        for package in $(cat "$1/with"); do
            case " $packages " in *" $package "*) ;; *) packages="$packages $package" ;; esac
        done
    fi
}

# Print the next step for this machine as the last line.
next_step() {
    command=$name
    case :$PATH: in
    *:"$bin":*) ;;
    *)
        command=$(as_typed "$bin/$name")
        say "note: $bin is not on your PATH; git finds the helper anyway; to type $name yourself, run:"
        say "  export PATH=$(as_typed "$bin"):\$PATH"
        ;;
    esac
    url=$("$bin/$name" list --json 2>/dev/null | "$python" -I -c "$registered_url" 2>/dev/null) || url=''
    if [ -z "$registered" ]; then
        say "The secret is not stored, see above. To use this payload on this machine, do one of these:"
        say "  export BBJWT_INSTALLATION=$(as_typed "$payload")"
        say "  $command register ${system:+--system }--insecure-storage $(as_typed "$payload")"
    elif [ -n "$url" ] && [ -n "$configure" ]; then
        say "next: git clone $url"
    elif [ -n "$url" ]; then
        say "next: $command exec -- git clone $url"
    elif [ -n "${BBJWT_INSTALLATION-}${BBJWT_INSTALLATION_COMMAND-}${BBJWT_BROKER-}${CREDENTIALS_DIRECTORY-}" ]; then
        say "next: $command doctor https://bitbucket.org/WORKSPACE/REPOSITORY"
    else
        say "next: $command register ${system:+--system }FILE (the payload of the app's \`installed\` callback);"
        say "without a keyring: export BBJWT_INSTALLATION=FILE"
    fi
}

# remove_empty DIR: remove the folder and the folders above it, if they are empty and below the home folder.
remove_empty() {
    folder=$1
    while [ -z "$system" ] && [ "${folder#"$HOME"/}" != "$folder" ] && rmdir "$folder" 2>/dev/null; do
        folder=${folder%/*}
    done
}

uninstall() {
    set_places
    cd /
    if [ -d "$data" ]; then lock_places && trap 'rm -f "$data/installing"' EXIT; fi
    if [ -e "$bin/$name" ] && ! is_own_command; then
        say "note: $bin/$name is left alone: another installer made it"
    elif [ -e "$bin/$name" ]; then
        say "removing $name from $data ..."
        "$bin/$name" --version >/dev/null ||
            fail "not uninstalled: $bin/$name does not start, see above, so nothing can be unregistered" \
                "install it again, then uninstall it: ./install.sh${system:+ --system} --no-configure"
        "$bin/$name" unconfigure "$level" || say "note: git's configuration could not be changed back, see above"
        "$bin/$name" unregister --all ${system:+--system} ||
            fail "not uninstalled: the secrets that are named above are still stored" \
                "unlock the keyring, then run again: ./install.sh --uninstall${system:+ --system}"
        "$bin/$name" forget --all || say "note: not all cached tokens could be dropped, see above"
        rm -f "$bin/$name"
    fi
    rm -rf "$data"
    for file in $shared; do
        rm -f "$share/$file"
        remove_empty "$share/${file%/*}"
    done
    for folder in "$bin" "${XDG_CONFIG_HOME:-${HOME-}/.config}" "${XDG_CACHE_HOME:-${HOME-}/.cache}"; do
        remove_empty "$folder"
    done
    say "uninstalled $name"
}

demo() {
    command -v git >/dev/null || fail "git is not installed" "install git first"
    python=$(find_python)
    temporary_folder
    cd /
    say "preparing the demo in $place, which is removed at the end ..."
    export PIP_NO_CACHE_DIR=1 UV_NO_CACHE=1
    make_environment "$place/environment"
    fill_with_project "$place/environment" locked-demo.txt '[demo]'
    cd "$here"
    PYTHONDONTWRITEBYTECODE=1 "$place/environment/bin/python" -m tests.demo "$place"
}

# Download the locked wheels with Python's bundled pip, or with the locked pip if uv made the environment.
fill_wheelhouse() {
    python=$(find_python)
    temporary_folder
    cd /
    make_environment "$place/environment"
    if ! has_pip "$place/environment"; then fill_locked "$place/environment" "$locks/locked-pip.txt"; fi
    for lock in "$locks"/locked*.txt; do
        say "downloading the wheels of ${lock##*/} ..."
        "$place/environment/bin/python" -I -m pip download --quiet --no-input --disable-pip-version-check --no-deps \
            --require-hashes --only-binary :all: -d "$filled" -r "$lock" ||
            fail "the wheels of ${lock##*/} could not be downloaded" "check the network, then run it again"
    done
    say "next: copy $filled and this folder to the other machine; there: ./install.sh --wheelhouse DIR"
}

# set_mode MODE: set the mode. Only one is allowed.
set_mode() {
    [ "$mode" = install_it ] || { usage >&2 && exit 2; }
    mode=$1
}

mode=install_it insecure='' latest='' system='' wheelhouse='' filled='' configure=yes payload='' packages='' broker=''
while [ $# -gt 0 ]; do
    case $1 in
    --demo) set_mode demo ;;
    --uninstall) set_mode uninstall ;;
    --system) system=yes ;;
    --no-configure) configure='' ;;
    --latest) latest=yes ;;
    --insecure-storage) insecure=yes ;;
    --wheelhouse)
        [ $# -ge 2 ] || fail "--wheelhouse needs a folder"
        shift
        [ -d "$1" ] || fail "there is no folder $1" "make it: ./install.sh --fill-wheelhouse DIR"
        wheelhouse=$(CDPATH='' cd -- "$1" && pwd)
        ;;
    --fill-wheelhouse)
        [ $# -ge 2 ] || fail "--fill-wheelhouse needs a folder"
        shift
        set_mode fill_wheelhouse
        mkdir -p -- "$1" || fail "the folder $1 cannot be made" "name a folder that you can write to"
        filled=$(CDPATH='' cd -- "$1" && pwd)
        ;;
    --with-broker) broker=yes ;;
    --with)
        [ $# -ge 2 ] || fail "--with needs a package"
        shift
        case $1 in
        -* | *[[:space:]]*) fail "--with takes one package at a time" "for example: --with keyring-pass" ;;
        esac
        packages="$packages $1"
        ;;
    # For tests/run: an environment with the project and a lock's packages, or with --latest and requirements.
    --environment)
        mode=environment
        shift
        break
        ;;
    -h | --help)
        usage
        exit 0
        ;;
    -*)
        usage >&2
        exit 2
        ;;
    *)
        [ -z "$payload" ] || { usage >&2 && exit 2; }
        [ -f "$1" ] || fail "there is no file $1" "name the payload of the app's \`installed\` callback"
        payload=$(CDPATH='' cd -- "$(dirname -- "$1")" && pwd)/$(basename -- "$1")
        ;;
    esac
    shift
done

# Refuse options that would be ignored.
unused=''
case $mode in
install_it) [ -n "$payload" ] || unused=$insecure ;;
demo) unused=$system$insecure$packages$broker$payload ;;
uninstall) unused=$latest$insecure$packages$broker$payload ;;
fill_wheelhouse) unused=$system$latest$insecure$packages$broker$payload ;;
esac
if [ -n "$unused" ] || { [ "$mode" != install_it ] && [ -z "$configure" ]; }; then
    usage >&2
    exit 2
fi

if [ "$mode" = environment ]; then
    python=$(find_python)
    into=$1
    shift
    [ -x "$into/bin/python" ] || make_environment "$into"
    if [ "$1" = --latest ]; then
        shift
        fill_environment "$into" "$@"
    else
        rm -rf "$into"/lib/python*/site-packages/git_credential_bbjwt* # pip would keep one of the same version.
        fill_locked_and_project "$into" "$1"
        bin=$into/bin
        write_launcher "$into" # The tests run the same command as users.
    fi
else
    "$mode"
fi
