"""Rules in isolation: trust in files for each bit of a mode and each owner, folders of files, and file names."""

from __future__ import annotations

import io
import itertools
import os
import pwd
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest

from git_credential_bbjwt.core import files, remedies, user_namespace
from git_credential_bbjwt.core.files import OwnFolder
from git_credential_bbjwt.core.record import file_name
from git_credential_bbjwt.git import settings
from git_credential_bbjwt.system import child_process
from git_credential_bbjwt.system.private_folder import PrivateFolder
from tests.conftest import INSTALLED, PATIENCE, cannot, is_running, until

#: Every bit of a mode that says what others than the owner may do.
BITS = [0o001, 0o002, 0o004, 0o010, 0o020, 0o040]
WRITING = (0o002, 0o020)
READING = (0o004, 0o040)

ME = os.geteuid()


@pytest.fixture
def anothers(another_user: int) -> Callable[[Path], Path]:
    """A function that gives a path to another user."""

    def give(path: Path) -> Path:
        os.chown(path, another_user, -1, follow_symlinks=False)
        return path

    return give


@pytest.fixture
def as_another(monkeypatch: pytest.MonkeyPatch, another_user: int) -> int:
    """From now on, let this process appear to be another user's, so that root's files are not its own."""
    monkeypatch.setattr(os, "geteuid", lambda: another_user)
    return another_user


@pytest.fixture
def at_once() -> Iterator[None]:
    """Fail a test that waits for the other end of a FIFO."""

    def fail(*_: object) -> NoReturn:
        raise AssertionError("it waits")

    before = signal.signal(signal.SIGALRM, fail)
    signal.alarm(10)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def made(path: Path, mode: int) -> Path:
    """Make a file with this mode."""
    path.write_bytes(b"text")
    path.chmod(mode)
    return path


def folder(path: Path, mode: int) -> Path:
    """Make a folder with this mode."""
    path.mkdir()
    path.chmod(mode)
    return path


def is_opened(path: Path, **options: int) -> bool:
    """Return whether a folder is treated as this user's own."""
    try:
        OwnFolder(str(path), **options).close()
    except PermissionError:
        return False
    return True


@pytest.mark.parametrize("bit", BITS)
def test_own_folder_can_be_entered_only_by_this_user(tmp_path: Path, bit: int) -> None:
    assert is_opened(folder(tmp_path / "ours", 0o700))
    assert is_opened(folder(tmp_path / "sticky", 0o1700))
    shared = folder(tmp_path / "shared", 0o700 | bit)
    assert not is_opened(shared)
    assert is_opened(shared, mode=0o755) == (bit not in WRITING)
    assert files.is_private(str(tmp_path / "ours"))
    assert not files.is_private(str(shared))


def test_own_folder_is_not_a_link_and_not_another_users(tmp_path: Path, anothers: Callable[[Path], Path]) -> None:
    ours = folder(tmp_path / "ours", 0o700)
    (tmp_path / "link").symlink_to(ours)
    for path, reason in ((tmp_path / "link", OSError), (made(tmp_path / "file", 0o600), NotADirectoryError)):
        with pytest.raises(reason):
            OwnFolder(str(path))
        assert not files.is_private(str(path))
    assert not files.is_private(str(tmp_path / "nowhere"))
    theirs = anothers(folder(tmp_path / "theirs", 0o700))
    assert not is_opened(theirs)
    assert not files.is_private(str(theirs))


@pytest.mark.parametrize("bit", BITS)
def test_own_file_is_read_if_nobody_else_can_write_or_read_it(tmp_path: Path, bit: int) -> None:
    ours = OwnFolder(str(folder(tmp_path / "ours", 0o700)))
    made(tmp_path / "ours/plain", 0o600)
    made(tmp_path / "ours/executable", 0o700)
    made(tmp_path / "ours/shared", 0o600 | bit)

    for name in ("plain", "executable"):
        assert (ours.read(name), ours.read(name, others_may_read=True)) == (b"text", b"text")
    assert ours.read("shared") is None
    assert ours.read("shared", others_may_read=True) == (None if bit in WRITING else b"text")


@pytest.mark.usefixtures("at_once")
def test_links_fifos_and_other_users_files_are_not_read(tmp_path: Path, anothers: Callable[[Path], Path]) -> None:
    ours = OwnFolder(str(folder(tmp_path / "ours", 0o700)))
    made(tmp_path / "file", 0o600)
    (tmp_path / "ours/link").symlink_to(tmp_path / "file")
    os.mkfifo(tmp_path / "ours/fifo", 0o600)
    anothers(made(tmp_path / "ours/theirs", 0o600))

    assert [ours.read(name) for name in ("link", "fifo", "theirs", "nothing")] == [None] * 4


def test_a_file_is_read_up_to_its_limit(tmp_path: Path) -> None:
    ours = OwnFolder(str(folder(tmp_path / "ours", 0o700)))
    file = made(tmp_path / "ours/file", 0o600)
    os.truncate(file, 8 * 1024 * 1024)
    assert len(ours.read("file") or b"") == 8 * 1024 * 1024
    os.truncate(file, 8 * 1024 * 1024 + 1)
    assert ours.read("file") is None


def reason(path: Path, **how: bool) -> str:
    """Return the reason why ``path`` is not trusted; empty if it is."""
    why_not = files.why_not_trusted(str(path), **how)
    return "" if why_not is None else why_not[0]


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("bit", BITS)
def test_place_is_trusted_if_nobody_else_can_write(tmp_path: Path, bit: int, strict: bool) -> None:
    place = folder(tmp_path / "place", 0o700 | bit)
    assert bool(reason(place, strict=strict)) == (bit in WRITING)
    # A group may write to folders above, as in some distributions. A folder that everybody can write must be sticky.
    below = folder(place / "below", 0o700)
    deeper = folder(below / "deeper", 0o700)
    for path in (below, deeper):
        assert bool(reason(path, strict=strict)) == (bit in (WRITING if strict else (0o002,)))
        assert str(place) in reason(path, strict=strict) or not reason(path, strict=strict)
    place.chmod(0o1700 | bit)
    assert reason(deeper, strict=strict) == ""
    assert bool(reason(place, strict=strict)) == (bit in WRITING)


def test_remedy_is_a_command_for_the_cause(tmp_path: Path, anothers: Callable[[Path], Path]) -> None:
    place = folder(tmp_path / "place", 0o722)
    assert files.why_not_trusted(str(place)) == (
        f"others can write to {place} (mode 0722)",
        f"chmod go-w {place}",
    )
    anothers(place)
    assert files.why_not_trusted(str(place / "..") + "/place") == (
        f"{place} belongs to another user (number {place.stat().st_uid})",
        f"chown {ME} {place} && chmod go-w {place}",
    )


def test_place_is_trusted_if_it_is_this_users_or_roots(
    tmp_path: Path, anothers: Callable[[Path], Path], monkeypatch: pytest.MonkeyPatch, another_user: int
) -> None:
    roots = folder(tmp_path / "roots", 0o755)
    below = folder(roots / "below", 0o755)
    theirs = anothers(folder(roots / "theirs", 0o755))
    below_theirs = folder(theirs / "below", 0o755)
    (tmp_path / "link").symlink_to(roots)
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    through = tmp_path / "link/below"

    assert [reason(path) for path in (roots, below, through)] == ["", "", ""]
    assert "another user" in reason(theirs)
    assert str(theirs) in reason(below_theirs)
    assert "link" in reason(tmp_path / "link")
    for path in (tmp_path / "nowhere", tmp_path / "gone/below"):
        with pytest.raises(FileNotFoundError):
            reason(path)
    monkeypatch.setattr(os, "geteuid", lambda: another_user)
    assert [reason(path) for path in (roots, theirs, below)] == ["", "", ""]


@pytest.mark.parametrize("strict", [False, True])
def test_links_on_the_way_count_with_their_folders(
    tmp_path: Path, anothers: Callable[[Path], Path], strict: bool
) -> None:
    target = folder(tmp_path / "target", 0o755)
    made(target / "file", 0o600)
    open_to_all = folder(tmp_path / "open", 0o755)
    (open_to_all / "link").symlink_to("../target")
    (tmp_path / "again").symlink_to(open_to_all / "link")
    path = tmp_path / "again/file"

    assert reason(path, strict=strict) == ""
    open_to_all.chmod(0o777)  # Anybody can replace the link.
    assert str(open_to_all) in reason(path, strict=strict)
    open_to_all.chmod(0o1777)
    assert reason(path, strict=strict) == ""
    anothers(open_to_all / "link")
    assert str(open_to_all / "link") in reason(path, strict=strict)


def test_file_of_a_broker_may_be_a_link_as_kubernetes_mounts_it(tmp_path: Path) -> None:
    folder(tmp_path / "..2026", 0o755)
    made(tmp_path / "..2026/allowed", 0o644)
    (tmp_path / "..data").symlink_to("..2026")
    (tmp_path / "allowed").symlink_to("..data/allowed")

    assert reason(tmp_path / "allowed", strict=True) == ""
    assert "link" in reason(tmp_path / "allowed")
    (tmp_path / "..2026/allowed").chmod(0o664)
    assert "others can write" in reason(tmp_path / "allowed", strict=True)


def test_as_many_links_are_followed_as_linux_follows(tmp_path: Path) -> None:
    folder(tmp_path / "0", 0o755)
    for number in range(1, 42):
        (tmp_path / str(number)).symlink_to(str(number - 1))

    assert reason(tmp_path / "40/..") == ""
    with pytest.raises(OSError, match="links"):
        reason(tmp_path / "41/..")


def test_links_in_a_circle_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(OSError, match="links"):
        reason(tmp_path / "a/file")


@pytest.mark.parametrize("bit", BITS)
def test_file_is_trusted_if_nobody_else_can_write(tmp_path: Path, bit: int) -> None:
    file = made(tmp_path / "file", 0o600 | bit)
    found = file.stat()
    assert bool(files.why_not_trusted_itself(found, str(file))) == (bit in WRITING)
    assert files.others_can_read(found) == (bit in READING)


def test_file_of_root_is_trusted_by_everybody(
    tmp_path: Path, anothers: Callable[[Path], Path], as_another: int
) -> None:
    roots = made(tmp_path / "roots", 0o644).stat()
    theirs = anothers(made(tmp_path / "theirs", 0o644)).stat()
    assert [files.why_not_trusted_itself(one, str(tmp_path / "x")) for one in (roots, theirs)] == [None, None]
    assert theirs.st_uid == as_another
    # Root lets this user read it by its group or an access control list.
    for mode, read in ((0o640, False), (0o641, False), (0o642, False), (0o644, True)):
        (tmp_path / "roots").chmod(mode)
        assert files.others_can_read((tmp_path / "roots").stat()) == read


def test_file_of_another_user_is_not_trusted(tmp_path: Path, anothers: Callable[[Path], Path]) -> None:
    found = anothers(made(tmp_path / "theirs", 0o600)).stat()
    assert "another user" in (files.why_not_trusted_itself(found, str(tmp_path / "theirs")) or [""])[0]


def test_unmapped_owner_is_root_below_folders_that_nobody_else_can_write(
    tmp_path: Path, anothers: Callable[[Path], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    home = anothers(folder(tmp_path / "home", 0o755))
    file = anothers(made(home / "file", 0o644))
    mapped = {"unmapped": -1}
    monkeypatch.setattr(user_namespace, "_is_unmapped", lambda uid: uid == mapped["unmapped"])
    assert not files.is_trusted_owner(file.stat().st_uid, str(file))
    mapped["unmapped"] = file.stat().st_uid
    is_below_shared = any(folder.stat().st_mode & 0o022 for folder in tmp_path.parents)
    assert files.is_trusted_owner(file.stat().st_uid, str(file)) != is_below_shared
    # The owner is the machine's root if nobody else can write above.
    monkeypatch.setattr(user_namespace, "_others_can_write_above", lambda path: path != str(file))
    assert files.is_trusted_owner(file.stat().st_uid, str(file))
    assert not files.is_trusted_owner(file.stat().st_uid, str(home))


def test_folders_above_are_those_of_the_real_path(tmp_path: Path) -> None:
    shared = folder(tmp_path / "shared", 0o1777)
    made(shared / "file", 0o600)
    (tmp_path / "link").symlink_to(shared / "file")

    assert user_namespace._others_can_write_above(str(tmp_path / "link"))
    assert not user_namespace._others_can_write_above("/etc/passwd")
    assert user_namespace._others_can_write_above("/nowhere/at/all")


def test_no_owner_is_unmapped_on_the_machine_itself() -> None:
    if Path("/proc/self/uid_map").read_text().split() != ["0", "0", "4294967295"]:
        cannot("this is a user namespace")
    assert not user_namespace._is_unmapped(int(Path("/proc/sys/kernel/overflowuid").read_text()))


def test_no_owner_is_unmapped_if_the_system_does_not_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: str) -> NoReturn:
        raise PermissionError(path)

    monkeypatch.setattr("builtins.open", refuse)
    assert not user_namespace._is_unmapped(65_534)


@pytest.mark.parametrize(("uid", "expected"), [(65_534, True), (1_000, False), (0, False)])
def test_unmapped_owner_is_the_overflow_user(monkeypatch: pytest.MonkeyPatch, uid: int, expected: bool) -> None:
    said = {"/proc/sys/kernel/overflowuid": "65534\n", "/proc/self/uid_map": "         0       1000          1\n"}
    monkeypatch.setattr("builtins.open", lambda path: io.StringIO(said[path]))
    assert user_namespace._is_unmapped(uid) == expected


def test_command_for_root_is_not_named_to_root_and_has_no_values(monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["/opt/a b", "--app", "the-key", "--scope=x", "register", "--system", "FILE"]
    monkeypatch.setattr("sys.argv", words)
    for uid in (0, 1_000):
        monkeypatch.setattr(os, "geteuid", lambda uid=uid: uid)
        hint = "run it as root: sudo '/opt/a b' --app … --scope register --system …"
        assert remedies.as_root("otherwise") == ("otherwise" if uid == 0 else hint)


@pytest.mark.usefixtures("at_once")
def test_files_are_opened_to_read_without_waiting_and_are_not_inherited(tmp_path: Path) -> None:
    file = made(tmp_path / "file", 0o600)
    (tmp_path / "link").symlink_to(file)
    os.mkfifo(tmp_path / "fifo")
    for path in (file, tmp_path / "link", tmp_path / "fifo"):
        fd = files.open_to_read(str(path))
        assert not os.get_inheritable(fd)
        if path.name != "fifo":
            assert os.read(fd, 10) == b"text"
        os.close(fd)
    os.close(files.open_to_read(str(file), through_links=False))
    with pytest.raises(OSError, match="symbolic links"):
        files.open_to_read(str(tmp_path / "link"), through_links=False)


@pytest.mark.usefixtures("at_once")
def test_files_are_opened_to_append(tmp_path: Path) -> None:
    for text in (b"one", b"two"):
        fd = files.open_to_append(str(tmp_path / "new"))
        assert not os.get_inheritable(fd)
        os.write(fd, text)
        os.close(fd)
    assert (tmp_path / "new").read_bytes() == b"onetwo"
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o600
    (tmp_path / "link").symlink_to(tmp_path / "new")
    os.mkfifo(tmp_path / "fifo")
    for name in ("link", "fifo"):
        with pytest.raises(OSError, match=r"symbolic links|No such device"):
            files.open_to_append(str(tmp_path / name))


def test_age_of_a_file_that_is_written_concurrently_is_not_negative(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = PrivateFolder(str(tmp_path / "ours"), create=True)
    asked = os.stat

    def rewritten_meanwhile(*arguments: Any, **options: Any) -> os.stat_result:
        time.sleep(0.05)
        folder.write_many({"name": b"new"})
        return asked(*arguments, **options)

    folder.write_many({"name": b"old"})
    monkeypatch.setattr(os, "stat", rewritten_meanwhile)
    assert 0 <= folder.age("name") < PATIENCE


def test_the_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, anothers: Callable[[Path], Path]) -> None:
    def config(home: str | None) -> str | None:
        monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
        monkeypatch.delenv("HOME", raising=False)
        if home is not None:
            monkeypatch.setenv("HOME", home)
        return files.user_config_folder()

    usual = pwd.getpwuid(os.getuid()).pw_dir + "/.config/git-credential-bbjwt"
    theirs = anothers(folder(tmp_path / "theirs", 0o755))
    assert [config(home) for home in (None, "", "relative")] == [usual] * 3
    assert config(f"{tmp_path}//") == f"{tmp_path}/.config/git-credential-bbjwt"
    for home in (tmp_path / "nowhere", made(tmp_path / "file", 0o600), theirs):
        assert config(str(home)) is None
    monkeypatch.setattr(os, "geteuid", lambda: theirs.stat().st_uid)
    assert config(str(theirs)) == f"{theirs}/.config/git-credential-bbjwt"
    assert config(str(tmp_path)) == f"{tmp_path}/.config/git-credential-bbjwt"


def test_variable_is_anothers_if_a_path_in_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, anothers: Callable[[Path], Path]
) -> None:
    theirs = anothers(folder(tmp_path / "theirs", 0o755))

    def told(variable: str, value: str) -> bool:
        monkeypatch.setenv(variable, value)
        return files.is_anothers(variable)

    for variable in ("HOME", "XDG_CACHE_HOME"):
        assert told(variable, str(theirs))
        assert told(variable, f"{theirs}/not/made/yet")
        assert not told(variable, str(tmp_path))
        assert not told(variable, f"{tmp_path}/not/made/yet")
    assert told("XDG_CONFIG_DIRS", f"{tmp_path}:{theirs}")
    assert not told("XDG_CONFIG_DIRS", f"{tmp_path}:theirs")
    assert not told("XDG_CONFIG_DIRS", f"relative:{theirs}")
    assert not told("OTHER_HOME", str(theirs))
    monkeypatch.setenv("HOME", str(theirs))
    assert (files.home_is_anothers(), files.why_no_home()) == (True, ": HOME belongs to another user")
    assert files.user_runtime_base() is None
    monkeypatch.setenv("HOME", str(tmp_path))
    assert (files.home_is_anothers(), files.why_no_home()) == (False, "")
    monkeypatch.setattr(os, "geteuid", lambda: theirs.stat().st_uid)
    assert not told("HOME", str(theirs))
    assert not told("HOME", str(tmp_path))  # It belongs to root.


def test_folders_of_variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for value, found in (("", f"/run/user/{ME}"), ("relative", f"/run/user/{ME}"), (str(tmp_path), str(tmp_path))):
        monkeypatch.setenv("XDG_RUNTIME_DIR", value)
        assert files.user_runtime_base() == found
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(files, "_XDG", False)
        assert files.user_runtime_base() is None
    for value, site in (("", "/etc/xdg"), ("relative:/a:/b", "/a")):
        monkeypatch.setenv("XDG_CONFIG_DIRS", value)
        assert files.site_config_folder() == f"{site}/git-credential-bbjwt"
    monkeypatch.setenv("HOME", "back\\slash")
    assert settings.git_home() == "back\\slash"
    monkeypatch.delenv("HOME")
    monkeypatch.setenv("USERPROFILE", "of another system")
    assert settings.git_home() == ""


def test_names_made_of_parts() -> None:
    assert file_name("bitbucket.org:8443", "a b") == "bitbucket.org=8443,a+b"
    assert file_name("host", "") == "host,"
    longest = "a" * (200 - len("host,"))
    assert file_name("host", longest) == f"host,{longest}"
    for parts in (("host", longest + "a"), ("host", "a,b"), ("host", "A"), ("host", "é"), ("host", "a", "b,")):
        assert len(file_name(*parts)) == 32, parts


def test_folder_that_others_can_write_is_trusted_if_it_is_mounted_read_only() -> None:
    if os.geteuid() != 0 or subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode:
        cannot("no mount namespace can be made here")
    place = f"/var/tmp/bbjwt-test-{os.getpid()}"
    look = (
        f"import sys; sys.path.insert(0, {INSTALLED!r}); from git_credential_bbjwt.core import files as o; "
        f"print([o.why_not_trusted('{place}/mounted/file', strict=strict) is None for strict in (False, True)])"
    )
    script = f"""
set -eu
mkdir -m 755 {place} {place}/mounted
touch {place}/mounted/file
chmod 777 {place}/mounted
mount --bind {place}/mounted {place}/mounted
"$1" -c "$2"
mount -o remount,bind,ro {place}/mounted
"$1" -c "$2"
"""
    try:
        done = subprocess.run(
            ["unshare", "--mount", "sh", "-c", script, "sh", sys.executable, look], capture_output=True, text=True
        )
        assert done.stdout == "[False, False]\n[True, True]\n", done.stderr
    finally:
        shutil.rmtree(place)


def test_an_orphan_that_moves_while_the_children_are_read_ends_with_the_call(tmp_path: Path) -> None:
    told = tmp_path / "pid"
    program = (
        "import io, os, sys, threading, time\n"
        "from git_credential_bbjwt.system import child_process, shell\n"
        "def read_slowly(*words, **options):\n"
        "    read = io.StringIO(open(*words, **options).read())\n"
        "    time.sleep(0.01)\n"
        "    return read\n"
        "child_process.open = read_slowly\n"
        "shell.end_children_on_signals()\n"
        "command = 'setsid sleep 303 & echo $! >' + sys.argv[1] + '; wait'\n"
        "options = {'most': 100, 'env': dict(os.environ)}\n"
        "threading.Thread(target=shell.run, args=(command, b''), kwargs=options, daemon=True).start()\n"
        "while True:\n"
        "    time.sleep(0.1)\n"
    )
    orphans = []
    for _ in range(8):
        with subprocess.Popen([sys.executable, "-c", program, str(told)]) as process:
            until(lambda: told.exists() and told.read_text().endswith("\n"))
            process.terminate()
        orphans.append(int(told.read_text()))
        told.unlink()
    until(lambda: not any(map(is_running, orphans)))


def test_a_command_that_a_thread_starts_while_the_process_ends_ends_too(tmp_path: Path) -> None:
    told = tmp_path / "pids"
    program = (
        "import os, sys, threading, time\n"
        "from git_credential_bbjwt.system import child_process, shell\n"
        "end_all = child_process.end_all\n"
        "def end_all_and_stall():\n"
        "    end_all()\n"
        "    time.sleep(0.5)\n"
        "child_process.end_all = end_all_and_stall\n"
        "shell.end_children_on_signals()\n"
        "command = 'setsid sleep 303 & echo $! >>' + sys.argv[1] + '; wait'\n"
        "def run_again_and_again():\n"
        "    while True:\n"
        "        shell.run(command, b'', most=100, env=dict(os.environ))\n"
        "threading.Thread(target=run_again_and_again, daemon=True).start()\n"
        "while True:\n"
        "    time.sleep(0.1)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program, str(told)]) as process:
        until(lambda: told.exists() and told.read_text().endswith("\n"))
        process.terminate()
    until(lambda: not any(map(is_running, map(int, told.read_text().split()))))


def test_processes_that_start_others_for_ever_do_not_hold_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = itertools.count(10**9)  # Larger than a process's.
    monkeypatch.setattr(child_process, "_children", lambda: [next(numbers)])
    monkeypatch.setattr(child_process, "adopts_orphans", True)
    monkeypatch.setattr(child_process, "starting", threading.RLock())
    child_process.end_all()
    assert next(numbers) > 10**9
