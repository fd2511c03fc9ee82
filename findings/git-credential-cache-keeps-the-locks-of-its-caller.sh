#!/bin/sh
# If a job runs git under a lock, the process that git-credential-cache starts keeps the lock after the job has ended.
#
# git 2.39.5 with flock of util-linux 2.38.1; git 2.55.0 does the same. Scheduled jobs run as `flock --nonblock FILE COMMAND`, so
# that only one is active. One expects that the lock is free when the command has ended. The first git command that gives
# git-credential-cache a credential starts a daemon, which inherits the job's open files. One of them is flock's, and the daemon
# does not close it, so the next jobs do not run until the daemon ends: 15 minutes after the last use of the cache, if no
# `--timeout` says otherwise. The manual of git-credential-cache describes the daemon and does not mention open files. With
# `flock --close`, the lock is free at once. A helper that leaves a process behind should close every file that it inherited.
set -eu

folder=$(mktemp -d)
trap 'git credential-cache exit; rm -rf "$folder"' EXIT
export HOME="$folder" XDG_CONFIG_HOME="$folder" XDG_CACHE_HOME="$folder" GIT_CONFIG_NOSYSTEM=1
unset GIT_CONFIG_GLOBAL
cd "$folder"

# try HELPER OPTION...: run a job that stores a credential, and report whether its lock is free then.
try() {
    helper=$1
    shift
    printf 'protocol=https\nhost=git.example\nusername=user\npassword=secret\n\n' |
        flock --nonblock "$@" lock git -c credential.helper="$helper" credential approve
    echo "$helper${*:+ with flock $*}: after the job, the lock is $(state)"
}
state() { flock --nonblock lock echo free || echo held; }
{
    try store
    try cache
    git credential-cache exit
    until [ "$(state)" = free ]; do sleep 0.1; done
    echo "cache: after its end, the lock is $(state)"
    try cache --close
} >seen
cat >expected <<'END'
store: after the job, the lock is free
cache: after the job, the lock is held
cache: after its end, the lock is free
cache with flock --close: after the job, the lock is free
END

cat seen
diff expected seen >&2 || {
    echo "this is no longer as it was found" >&2
    exit 1
}
