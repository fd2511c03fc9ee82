"""A separate machine: a mount and process namespace that cannot write to the real machine.

It is for daemons that a test must really start, such as systemd, which empties /tmp when it starts. Everything writable
in the namespace is in separate memory, and the rest is read-only. Nothing is started until both have been checked.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.conftest import INSTALLED, LATE, PATIENCE, cannot, need

#: The broker's user, its home, and the group whose members may ask. No distribution assigns these system numbers.
USER, HOME, NUMBER = "bbjwt", "/var/lib/bbjwt", 61_990
GROUP, GROUP_NUMBER = "builds", 61_991

# Folders that are empty and in memory.
_EMPTY = ("/tmp", "/run", "/var", "/usr/local/bin", "/root", "/home")  # the namespace's

_SCRIPT = """
set -eu
umask 022
mount --make-rprivate /
mount -t tmpfs -o size=64m,mode=755 apart /mnt
cp -a /etc /mnt/etc
mkdir /mnt/site /mnt/python /mnt/given
mount --bind "$APART_SITE" /mnt/site
mount --bind "$APART_PYTHON" /mnt/python
mount --bind "$APART_GIVEN" /mnt/given
for folder in /mnt/site /mnt/python /mnt/given; do
    mount -o remount,bind,ro "$folder"
done
mkdir /mnt/dev
for node in null zero full random urandom tty; do
    touch /mnt/dev/$node
    mount --bind /dev/$node /mnt/dev/$node
done
mkdir /mnt/dev/shm /mnt/dev/pts
ln -s /proc/self/fd /mnt/dev/fd
mount --rbind /mnt/dev /dev
mount --bind /mnt/etc /etc
for folder in $APART_EMPTY; do
    mount -t tmpfs -o size=64m,mode=755 apart "$folder"
done
chmod 1777 /tmp /dev/shm
if [ ! -e "$APART_PYTHON" ]; then  # It was in one of those folders. It finds its own parts by this path.
    mkdir -p "$APART_PYTHON"
    mount --bind /mnt/python "$APART_PYTHON"
    mount -o remount,bind,ro "$APART_PYTHON"
fi
mount -o remount,bind,ro /
awk '$2 != "/" && $2 !~ "^/(mnt|etc|proc|dev|sys)(/|$)" { print $2 }' /proc/self/mounts | while read -r place; do
    case " $APART_EMPTY $APART_PYTHON " in *" $place "*) continue ;; esac
    mountpoint -q "$place" || continue  # It is covered by now.
    mount -o remount,bind,ro "$place" 2>/dev/null || umount -l "$place"
done
for folder in /proc/sys; do
    mount --bind "$folder" "$folder"
    mount -o remount,bind,ro "$folder"
done
mount -o remount,bind,ro /sys

# Nothing is started where anything of the real machine can be written.
for folder in $APART_EMPTY /etc /mnt /dev; do
    mountpoint -q "$folder"
done
for folder in / /usr /opt /srv /sys /mnt/site /mnt/python /mnt/given; do
    if touch "$folder/apart" 2>/dev/null; then rm -f "$folder/apart"; echo "$folder can be written" >&2; exit 70; fi
done

if [ -w /proc/sys/fs/nr_open ]; then echo "/proc/sys can be written" >&2; exit 70; fi

echo "$APART_USER:x:$APART_NUMBER:$APART_NUMBER::$APART_HOME:/bin/sh" >>/etc/passwd
echo "$APART_USER:*:1::::::" >>/etc/shadow
if [ -w /proc/sys/fs/nr_open ]; then echo "/proc/sys can be written" >&2; exit 70; fi

echo "$APART_USER:x:$APART_NUMBER:" >>/etc/group
echo "$APART_GROUP:x:$APART_GROUP_NUMBER:" >>/etc/group
mkdir -p "$APART_HOME" /var/log /var/tmp /var/cache /run/lock /run/sshd
chmod 1777 /var/tmp
cp -a /mnt/given/home/. "$APART_HOME"
chmod 700 "$APART_HOME"
chown -R "$APART_NUMBER:$APART_NUMBER" "$APART_HOME"
rm -rf /etc/systemd/system /etc/systemd/user
mkdir -p /etc/git-credential-bbjwt
cp -a /mnt/given/etc/. /etc
chown -R 0:0 /etc/git-credential-bbjwt
cat >/usr/local/bin/git-credential-bbjwt <<'END'
#!PYTHON -IXutf8
import sys
sys.path[:] = ["/mnt/site", *sys.path, "/mnt/site"]  # The command removes the first one, and loads `site`.
from git_credential_bbjwt.entry import main
main(sys.argv[1:])
END
sed -i "s|PYTHON|$APART_PROGRAM|" /usr/local/bin/git-credential-bbjwt
chmod 755 /usr/local/bin/git-credential-bbjwt
cd /
eval "$APART_BEFORE"
exec $APART_DAEMON
"""


# systemd runs no unit of the real machine, only its journal and the units that a test adds. Its usual units would set
# kernel parameters, load modules, and remove files.
_ONLY_JOURNAL = """
units=/usr/lib/systemd/system
mkdir /run/kept
cp $units/systemd-journald.service $units/systemd-journald.socket $units/systemd-journald-dev-log.socket \
    $units/sockets.target $units/shutdown.target $units/basic.target /run/kept
for folder in $units /usr/lib/systemd/system-generators /usr/lib/systemd/system-environment-generators; do
    [ ! -d "$folder" ] || mount -t tmpfs apart "$folder"
done
cp /run/kept/* $units
rm -rf /run/kept /etc/systemd/system.conf.d /etc/systemd/system.control /etc/tmpfiles.d /etc/fstab
mkdir -p $units/sockets.target.wants
ln -s ../systemd-journald.socket ../systemd-journald-dev-log.socket $units/sockets.target.wants
cat >$units/sysinit.target <<'END'
[Unit]
Description=The journal
DefaultDependencies=no
Wants=systemd-journald.socket systemd-journald-dev-log.socket systemd-journald.service
END
"""


class Apart:
    """A daemon in a separate namespace, between `start` and `stop`.

    ``given`` is a folder whose ``home`` becomes the broker user's home, and whose ``etc`` is laid over ``/etc``.
    """

    def __init__(self, given: Path) -> None:
        if os.geteuid() != 0:
            cannot("only root can make a machine apart")
        self.given = given
        for name in ("home", "etc/git-credential-bbjwt"):
            (given / name).mkdir(parents=True, exist_ok=True)
        self._process: subprocess.Popen[bytes] | None = None
        self._groups: set[str] = set()
        self.pid = 0

    def start(self, daemon: str, *, before: str = "", processes: bool = True) -> None:
        """Start a command line in the namespace; ``before`` runs there first."""
        unshare = [need("unshare"), "--mount", "--ipc", "--uts"]
        if subprocess.run([*unshare, "true"], stderr=subprocess.DEVNULL).returncode != 0:
            cannot("no namespace can be made here")
        if processes:
            unshare += ["--pid", "--fork", "--mount-proc", "--kill-child", "--cgroup"]
        environment = {
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "APART_SITE": INSTALLED,
            "APART_PYTHON": sys.base_prefix,
            "APART_PROGRAM": f"{sys.base_prefix}/bin/python{sys.version_info[0]}.{sys.version_info[1]}",
            "APART_GIVEN": str(self.given),
            "APART_EMPTY": " ".join(folder for folder in _EMPTY if os.path.isdir(folder)),
            "APART_USER": USER,
            "APART_HOME": HOME,
            "APART_NUMBER": str(NUMBER),
            "APART_GROUP": GROUP,
            "APART_GROUP_NUMBER": str(GROUP_NUMBER),
            "APART_BEFORE": before,
            "APART_DAEMON": daemon,
            "container": "bbjwt",
        }
        self._groups = control_groups()
        self.log = self.given / "log"
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                [*unshare, "sh", "-c", _SCRIPT], env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        end = time.monotonic() + PATIENCE
        while True:
            assert self._process.poll() is None, self.log.read_text()
            children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
            pid = int(children[0]) if children and processes else self._process.pid
            program = os.path.basename(daemon.split()[0])
            try:
                if os.path.basename(os.readlink(f"/proc/{pid}/exe")).startswith(program):
                    self.pid = pid
                    return
            except OSError:
                pass
            assert time.monotonic() < end, self.log.read_text()
            time.sleep(0.05)

    def start_systemd(self, unit: str) -> None:
        """Start systemd as the first process, then ``unit``, whose file is in ``given``."""
        self.start(f"{systemd()} --system --unit={unit} --show-status=no", before=_ONLY_JOURNAL)
        end = time.monotonic() + PATIENCE
        while "active" not in self.run("systemctl", "is-active", unit).stdout.split():
            assert time.monotonic() < end, self.log.read_text()
            time.sleep(0.1)

    def path(self, inside: str) -> str:
        """Return the real machine's path of a path in the namespace."""
        return f"/proc/{self.pid}/root{inside}"

    def run(self, *words: str, data: str = "", user: bool = False) -> subprocess.CompletedProcess[str]:
        """Run a command in the namespace, as root or as the broker's user."""
        enter = ["nsenter", "--target", str(self.pid), "--mount", "--pid", "--ipc", "--uts", "--"]
        if user:
            enter += ["setpriv", f"--reuid={NUMBER}", f"--regid={NUMBER}", "--clear-groups", "--"]
        environment = {"PATH": "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": HOME if user else "/root"}
        return subprocess.run(
            [*enter, *words], input=data, capture_output=True, text=True, env=environment, cwd="/", timeout=PATIENCE
        )

    def stop(self) -> None:
        """End the daemon and every process of its namespace."""
        if self._process is None:
            return
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
        self._process.kill()
        self._process.wait(PATIENCE)
        end = time.monotonic() + LATE
        while (made := control_groups() - self._groups) and time.monotonic() < end:
            time.sleep(0.05)  # Its processes are still ending.
            for group in made:
                for folder, _, _ in os.walk(group, topdown=False):
                    with contextlib.suppress(OSError):
                        os.rmdir(folder)


def control_groups() -> set[str]:
    """Return the control groups next to this process's, in every hierarchy: systemd makes some and leaves them."""
    found = set()
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        own = line.split(":", 2)[2]
        for base in ["/sys/fs/cgroup", *map(str, Path("/sys/fs/cgroup").glob("*/"))]:
            for name in ("init.scope", "system.slice", "*.mount"):
                found |= {str(path) for path in Path(base + own).glob(name) if path.is_dir()}
    return found


def systemd() -> str:
    """Return the path of systemd, or skip the test."""
    for path in ("/usr/lib/systemd/systemd", "/lib/systemd/systemd"):
        if os.path.exists(path):
            return path
    return cannot("systemd is not installed")


def ssh_daemon() -> str:
    """Return the path of sshd, or skip the test."""
    return shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin") or cannot("sshd is not installed")
