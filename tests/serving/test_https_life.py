"""The https broker as a long-lived process: start, reload, rotation, outage, many answers, the end."""

from __future__ import annotations

import contextlib
import json
import operator
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.conftest import EVERYTHING, PATIENCE, ends_within, free_port, request, takes_long, until, until_asked
from tests.emulator import Fault
from tests.https_broker import APPLICATION, HttpsBroker
from tests.issuer import IssuerServer


def test_broken_configuration_ends_the_server_with_3(broker: HttpsBroker) -> None:
    broker.write(broker.rule(allow=[]))
    broker.start(ready=None)
    assert broker.process is not None
    assert broker.process.wait(PATIENCE) == 3
    assert f"error: {broker.config}, line 5, rule 1: allow must be" in broker.log()


def test_server_without_a_configuration_ends_with_3(broker: HttpsBroker) -> None:
    broker.environment["BBJWT_BROKER_CONFIG"] = "broker.toml"
    broker.start(ready=None)
    assert broker.process is not None
    assert broker.process.wait(PATIENCE) == 3
    assert "git-credential-bbjwt: error: " in broker.log()


def test_variables_of_a_client_are_not_used(broker: HttpsBroker) -> None:
    broker.environment |= {"BBJWT_BROKER": "touch /tmp/x", "BBJWT_JWT": "a.b.c", "BBJWT_JWT_FILE": "/not/there"}
    assert broker.start().ask().status == 200


def test_installation_is_found_as_by_get(broker: HttpsBroker) -> None:
    broker.write(installation_command=f"cat {broker.scene.installation}", installation="/not/there")
    broker.start(ready=503)
    assert broker.ask().status == 502
    broker.environment["BBJWT_INSTALLATION"] = str(broker.scene.installation)
    broker.stop()
    broker.write(installation=None)
    assert broker.start().ask().status == 200


def test_installation_command_runs_in_any_thread(broker: HttpsBroker) -> None:
    command = f"cat {broker.scene.installation}; echo 'warning: a note' >&2"
    broker.write(installation=None, installation_command=command)
    broker.start()
    with ThreadPoolExecutor(4) as pool:
        names = ["acme/widgets", "acme/lib-a"] * 4
        assert {reply.status for reply in pool.map(lambda name: broker.ask(name=name), names)} == {200}
    assert broker.stop() == 0
    assert broker.scene.app.shared_secret not in broker.log()
    assert "a note" not in broker.log()


def test_installation_command_that_hangs_ends_with_the_budget(broker: HttpsBroker) -> None:
    mark = broker.folder / "pid"
    broker.write(installation=None, installation_command=f"echo $$ > {mark}; sleep 300", timeout=2)
    broker.start()
    with ends_within(2):
        assert broker.ask().status == 504
    until(lambda: not Path(f"/proc/{int(mark.read_text())}").exists())
    assert broker.send("GET", "/healthz").status == 200


def test_new_rule_is_in_force_within_a_second(broker: HttpsBroker) -> None:
    broker.start(workers=2)
    other = broker.issuer.token(repository_id="75")
    assert broker.ask(other).status == 403
    broker.write(broker.rule(), broker.rule(claims={"repository_id": "75"}))

    until(lambda: all(broker.ask(other).status == 200 for _ in range(8)))
    broker.write(broker.rule(claims={"repository_id": "75"}))
    until(lambda: all(broker.ask().status == 403 for _ in range(8)))
    assert "error" not in broker.log()


def test_broken_change_under_load_leaves_the_old_rules_in_force(broker: HttpsBroker) -> None:
    takes_long("five changes under load")
    broker.write(per_minute=1_000_000)
    broker.start(workers=2)
    until(lambda: broker.issuer.seen.count("/keys") == 2)  # A worker that started later would end the broker.
    good = broker.config.read_text()
    replies: list[int] = []
    stop = threading.Event()

    def load() -> None:
        token = broker.issuer.token()
        while not stop.is_set():
            replies.append(broker.ask(token).status)

    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    for text in ("[[trust]]\n", good.replace("claims", "claim"), "\0", ""):
        new = broker.folder / "new"
        new.write_text(text)
        new.chmod(0o600)
        new.replace(broker.config)
        time.sleep(1.3)
    broker.config.unlink()
    time.sleep(1.3)
    stop.set()
    for thread in threads:
        thread.join()

    assert set(replies) == {200}
    assert len(replies) > 50
    # Each of the two workers prints one error for each of the five changes.
    assert 5 <= broker.log().count("the configuration before stays in force") <= 10
    broker.write(broker.rule(), broker.rule(claims={"repository_id": "75"}))
    until(lambda: all(broker.ask(broker.issuer.token(repository_id="75")).status == 200 for _ in range(8)))


def test_issuer_that_a_change_adds_is_accepted(broker: HttpsBroker) -> None:
    broker.start(workers=2)
    other = IssuerServer(broker.issuer.context, "Ed25519")
    try:
        broker.write(broker.rule(), broker.rule(issuer=other.url))
        until(lambda: all(broker.ask(other.token()).status == 200 for _ in range(8)))
    finally:
        other.close()


def test_keys_are_fetched_before_the_first_request(broker: HttpsBroker) -> None:
    broker.start(workers=2)
    until(lambda: broker.issuer.seen.count("/keys") == 2)
    for _ in range(10):
        broker.ask()
    assert broker.issuer.seen.count("/keys") == 2


def test_no_thread_is_left_after_the_application_is_loaded(broker: HttpsBroker) -> None:
    broker.write(
        *[broker.rule(issuer=f"https://{number}.example", keys=f"{broker.issuer.url}/keys") for number in range(8)]
    )
    count = "import threading; import git_credential_bbjwt.serving.wsgi; print(threading.active_count())"
    done = subprocess.run([sys.executable, "-I", "-c", count], env=broker.environment, capture_output=True, text=True)

    assert done.stdout == "1\n", done.stderr
    assert broker.issuer.seen.count("/keys") == 8


def test_rotation_at_the_issuer_needs_no_action(broker: HttpsBroker) -> None:
    broker.start(workers=2)
    until(lambda: broker.issuer.seen.count("/keys") == 2)
    assert broker.ask().status == 200
    old = broker.issuer.token()
    broker.issuer.rotate("RSA")
    assert {broker.ask().status for _ in range(10)} == {200}
    assert broker.ask(old).status in (200, 401)


def test_odd_keys_beside_a_good_one_are_skipped(broker: HttpsBroker) -> None:
    good = json.dumps(broker.issuer.jwks()["keys"][0])
    odd = '{"kty": "RSA", "kty": "oct", "kid": "x"}, {"kty": "EC", "exp": NaN}, {"kty": "EC", "x": ' + "9" * 5000 + "}"
    url = broker.issuer.url
    documents = {
        "/.well-known/openid-configuration": f'{{"jwks_uri": "", "jwks_uri": "{url}/keys", "issuer":"{url}", "":NaN}}',
        "/keys": f'{{"keys": [{odd}, {good}]}}',
    }
    broker.issuer.answer = lambda path: (200, {}, documents[path].encode())

    assert broker.start().ask().status == 200


def test_outage_of_the_issuer_delays_no_known_key(broker: HttpsBroker) -> None:
    broker.start()
    broker.issuer.close()
    replies: list[int] = []

    def ask(number: int) -> None:
        # Every third token has a key that nobody knows.
        stranger = {"kid": f"unknown-{number}"} if number % 3 == 0 else None
        replies.append(broker.ask(broker.issuer.token(headers=stranger)).status)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(ask, range(60)))
    assert replies.count(200) == 40
    assert set(replies) <= {200, 401, 503}


def test_slow_issuer_delays_nobody_else(broker: HttpsBroker) -> None:
    takes_long("an issuer that is slow")
    slow = IssuerServer(broker.issuer.context, "P-256")
    gate = threading.Event()
    broker.write(broker.rule(), broker.rule(issuer=slow.url))
    broker.start()
    slow.rotate("P-256")
    slow.answer = lambda _: None if gate.wait(8) else (500, {}, b"")
    try:
        with ThreadPoolExecutor(24) as pool:
            hanging = [pool.submit(broker.ask, slow.token()) for _ in range(20)]
            time.sleep(0.3)
            assert {broker.ask().status for _ in range(20)} == {200}
            gate.set()
            statuses = [one.result().status for one in hanging]
    finally:
        slow.close()
    assert set(statuses) <= {200, 503}
    assert statuses.count(200) <= 2 * 3


def test_many_at_once_make_one_mint(broker: HttpsBroker) -> None:
    broker.start(
        str(Path(sys.executable).with_name("gunicorn")), "--bind", f"127.0.0.1:{broker.port}",
        "--worker-class", "gthread", "--workers", "4", "--threads", "16", "--no-control-socket", APPLICATION,
    )  # fmt: skip
    with ThreadPoolExecutor(32) as pool:
        replies = list(pool.map(lambda _: broker.ask(), range(32)))

    assert {reply.status for reply in replies} == {200}
    assert len({reply.lines["password"] for reply in replies}) == 1
    assert broker.scene.bitbucket.mints() == 1


def test_sigterm_lets_a_mint_finish(broker: HttpsBroker) -> None:
    broker.start()
    broker.scene.bitbucket.misbehave("api", Fault(delay=2))
    with ThreadPoolExecutor(1) as pool:
        reply = pool.submit(broker.ask)
        until_asked(broker.scene.bitbucket)
        assert broker.process is not None
        broker.process.send_signal(signal.SIGTERM)
        assert reply.result().status == 200
    assert broker.stop() == 0
    assert broker.audit()[-1]["outcome"] == "granted"


def test_worker_killed_during_a_mint_locks_nothing(broker: HttpsBroker) -> None:
    broker.start(workers=2)
    broker.scene.bitbucket.misbehave("api", Fault(delay=60))
    with ThreadPoolExecutor(1) as pool:
        reply = pool.submit(broker.ask)
        until_asked(broker.scene.bitbucket)
        for worker in broker.workers():
            os.kill(worker, signal.SIGKILL)
        with pytest.raises(OSError, match=r".*"):
            reply.result()
    until(lambda: broker.ask().status == 200)


def descriptors(process: int) -> int:
    return len(os.listdir(f"/proc/{process}/fd"))


def has_children(process: int) -> bool:
    """Return whether a thread of a process has children."""
    for thread in Path(f"/proc/{process}/task").iterdir():
        with contextlib.suppress(OSError):  # The thread has ended.
            if (thread / "children").read_text():
                return True
    return False


def resident(process: int) -> int:
    """Return the memory of a process in KiB."""
    status = Path(f"/proc/{process}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0])


def test_answers_leak_no_descriptor_and_no_memory(broker: HttpsBroker) -> None:
    answers = 5000 if EVERYTHING else 300
    broker.write(per_minute=100_000)
    broker.start()
    token = broker.issuer.token()

    def ask(number: int) -> int:
        if number % 20 == 0:
            return broker.ask("x", name="acme/lib-a").status
        return broker.ask(token, name="acme/secrets" if number % 10 == 0 else "acme/widgets").status

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(ask, range(400 if EVERYTHING else 200))) == {200, 401, 403}
        time.sleep(0.5)
        before = [(descriptors(worker), resident(worker)) for worker in broker.workers()]
        assert set(pool.map(ask, range(answers))) == {200, 401, 403}
    workers = broker.workers()
    opened, memory = zip(*before, strict=True)
    until(lambda: all(map(operator.le, map(descriptors, workers), opened)))
    assert all(resident(worker) <= most + 2048 for worker, most in zip(workers, memory, strict=True))


def test_mints_leak_no_descriptor(broker: HttpsBroker) -> None:
    names = [f"acme/lib-{number}" for number in range(24)]
    for name in names:
        broker.scene.bitbucket.host_repository(name, path=broker.scene.widgets.path)
    broker.start(
        str(Path(sys.executable).with_name("gunicorn")), "--bind", f"127.0.0.1:{broker.port}",
        "--worker-class", "gthread", "--threads", "8", "--no-control-socket", APPLICATION,
    )  # fmt: skip
    with ThreadPoolExecutor(4) as pool:
        assert {reply.status for reply in pool.map(lambda name: broker.ask(name=name), names[:10])} == {200}
        (worker,) = broker.workers()
        time.sleep(0.5)
        before = descriptors(worker)
        assert {reply.status for reply in pool.map(lambda name: broker.ask(name=name), names[10:])} == {200}
    until(lambda: descriptors(worker) <= before + 2)


def test_requests_that_fail_leave_no_descriptor_and_no_process(broker: HttpsBroker) -> None:
    broker.scene.write_installation(sharedSecret="")
    broker.start()
    (worker,) = broker.workers()
    assert broker.ask().status == 502
    before = descriptors(worker)
    assert {broker.ask().status for _ in range(10)} == {502}

    until(lambda: descriptors(worker) <= before and not has_children(worker))


SERVER_THAT_IGNORES_SIGCHLD = """
import signal, sys
from wsgiref.simple_server import make_server
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
from git_credential_bbjwt.serving.wsgi import application
make_server("127.0.0.1", int(sys.argv[1]), application).serve_forever()
"""


def test_server_that_ignores_the_ends_of_its_children(broker: HttpsBroker) -> None:
    broker.start(sys.executable, "-c", SERVER_THAT_IGNORES_SIGCHLD, str(broker.port))

    assert broker.ask().status == 200


def test_requests_without_a_token_cache_leave_no_descriptor(broker: HttpsBroker, shared_memory: Path) -> None:
    shared_memory.mkdir(mode=0o755)
    del broker.environment["XDG_CACHE_HOME"]
    broker.start()
    (worker,) = broker.workers()
    replies = [broker.ask().lines["bbjwt-error"]]
    before = descriptors(worker)
    replies += [broker.ask().lines["bbjwt-error"] for _ in range(5)]

    assert set(replies) == {"this broker has no token cache, which it needs to limit requests"}
    until(lambda: descriptors(worker) <= before)


def test_connection_to_one_host_is_closed_if_the_other_cannot_be_reached(broker: HttpsBroker) -> None:
    base = broker.scene.bitbucket.base_url.replace("localhost", "127.0.0.1")  # Its certificate is for localhost.
    broker.scene.write_installation(baseUrl=base)
    broker.write(hosts=[urlsplit(base).netloc])
    broker.start()
    (worker,) = broker.workers()
    before = descriptors(worker)
    for number in range(4):
        name = f"acme/lib-{number}"
        broker.scene.bitbucket.host_repository(name, path=broker.scene.widgets.path)
        assert broker.ask(body=f"{request(f'{base}/{name}')}\n".encode()).status == 502
        until(lambda: descriptors(worker) <= before)


def test_application_can_be_loaded_before_the_workers_start(broker: HttpsBroker) -> None:
    takes_long("a second way to start workers")
    broker.start(
        str(Path(sys.executable).with_name("gunicorn")), "--bind", f"127.0.0.1:{broker.port}", "--preload",
        "--worker-class", "gthread", "--workers", "2", "--threads", "4", "--no-control-socket", APPLICATION,
    )  # fmt: skip
    assert {broker.ask().status for _ in range(10)} == {200}
    broker.issuer.rotate("P-256")
    assert {broker.ask().status for _ in range(10)} == {200}


def test_two_brokers_share_their_folder_only(broker: HttpsBroker) -> None:
    takes_long("two brokers")
    broker.start()
    token = broker.ask().lines["password"]
    first, first_port = broker.process, broker.port
    broker.port = free_port()
    broker.url = f"http://127.0.0.1:{broker.port}"
    try:
        broker.start()
        assert broker.ask().lines["password"] == token
    finally:
        assert first is not None
        first.send_signal(signal.SIGTERM)
        first.wait(PATIENCE)
    assert first_port != broker.port


def test_command_imports_no_module_of_the_broker() -> None:
    run = "from git_credential_bbjwt.entry import main; main(['--version'])"
    shown = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", run], capture_output=True, text=True, timeout=PATIENCE, check=True
    ).stderr
    loaded = {line.rpartition("|")[2].strip() for line in shown.splitlines()}
    assert not {name for name in loaded if name.split(".")[0] in ("cryptography", "gunicorn", "tomllib", "tomli")}
    assert "git_credential_bbjwt.serving.policy" not in loaded
