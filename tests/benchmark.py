"""``tests/run --benchmark``: what the helper costs, as medians and ratios of whole processes in one interleaved run.

Ratios are what counts: a machine's speed drifts, and both sides of a ratio were measured in turn. The cached path is
held against ``python -I -c pass`` of the same interpreter, a mint against a plain shell helper of curl and openssl that
makes the same two requests. BBJWT_BENCHMARK_COMMAND names another command than the tests', such as install.sh's.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests import desktop, growth
from tests.conftest import Machine

COMMAND = Path(os.environ.get("BBJWT_BENCHMARK_COMMAND") or Path(sys.executable).with_name("git-credential-bbjwt"))
RUNS = int(os.environ.get("BBJWT_BENCHMARK_RUNS", "41"))
ROUND_TRIP = 0.080
MANY = 200

#: The same two requests as a mint, as one would write them in a shell.
SHELL_HELPER = r"""
set -eu
b64() { openssl base64 -A | tr '+/' '-_' | tr -d '='; }
jwt() {
    qsh=$(printf '%s&%s&%s' "$1" "$2" "$3" | openssl dgst -sha256 -r | cut -d' ' -f1)
    now=$(date +%s)
    head=$(printf '{"alg":"HS256","typ":"JWT"}' | b64)
    body=$(printf '{"iss":"%s","sub":"%s","iat":%s,"exp":%s,"qsh":"%s"}' \
        "$APP_KEY" "$CLIENT_KEY" "$now" "$((now + 180))" "$qsh" | b64)
    sign=$(printf '%s.%s' "$head" "$body" | openssl dgst -sha256 -hmac "$SHARED_SECRET" -binary | b64)
    printf '%s.%s.%s' "$head" "$body" "$sign"
}
path=/2.0/repositories/acme/widgets
uuid=$(curl -sS --cacert "$CA" -H "Authorization: JWT $(jwt GET $path 'fields=uuid%2Cfull_name')" \
    "$API$path?fields=uuid%2Cfull_name" | sed 's/.*"uuid": *"\([^"]*\)".*/\1/')
token=$(curl -sS --cacert "$CA" -H "Authorization: JWT $(jwt POST /site/oauth2/access_token '')" \
    --data-urlencode grant_type=urn:bitbucket:oauth2:jwt --data-urlencode scope=repository \
    --data-urlencode "bitbucket_repository=$uuid" "$BASE/site/oauth2/access_token" |
    sed 's/.*"access_token": *"\([^"]*\)".*/\1/')
printf 'username=x-token-auth\npassword=%s\n' "$token"
"""


class DelayingRelay:
    """Passes TCP connections on, as over a line of some round trip time: the handshake's round trip is added too."""

    def __init__(self, target: str, round_trip: float) -> None:
        self._target = urlsplit(target).port
        self._delay = round_trip / 2
        ready = threading.Event()
        threading.Thread(target=lambda: asyncio.run(self._serve(ready)), daemon=True).start()
        ready.wait()

    async def _serve(self, ready: threading.Event) -> None:
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0, backlog=256)
        self.url = f"https://localhost:{server.sockets[0].getsockname()[1]}"
        ready.set()
        await server.serve_forever()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there = await asyncio.open_connection("127.0.0.1", self._target)
        # A client may send only after the handshake's round trip; here it could at once.
        await asyncio.gather(
            self._pass_on(reader, there[1], 3 * self._delay), self._pass_on(there[0], writer, self._delay)
        )

    async def _pass_on(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, first_delay: float) -> None:
        loop = asyncio.get_running_loop()
        not_before = loop.time() + first_delay
        due: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

        async def send() -> None:
            while True:
                when, data = await due.get()
                await asyncio.sleep(max(0.0, when - loop.time()))
                if not data:
                    sink.close()
                    return
                sink.write(data)

        sending = asyncio.create_task(send())
        try:
            while data := await source.read(65_536):
                due.put_nowait((max(not_before, loop.time() + self._delay), data))
        except OSError:
            pass
        due.put_nowait((loop.time() + self._delay, b""))
        await sending


class Bench:
    """One Bitbucket, and one machine that knows its installation."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        arguments = [sys.executable, "-m", "tests.emulator", str(folder / "bitbucket"), "widgets"]
        arguments += [f"many{number}" for number in range(MANY)]
        self._emulator = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._emulator.stdout is not None
        self.known: dict[str, Any] = json.loads(self._emulator.stdout.readline())
        (folder / "home").mkdir()
        (folder / "run").mkdir(mode=0o700)
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder / "home"),
            "XDG_RUNTIME_DIR": str(folder / "run"),
            "SSL_CERT_FILE": self.known["ca_file"],
        }

    def installation(self, name: str, base_url: str, base_api_url: str) -> dict[str, str]:
        """An environment in which the helper reaches Bitbucket at these URLs."""
        path = self._folder / f"{name}.json"
        path.write_text(json.dumps(self.known["payload"] | {"baseUrl": base_url, "baseApiUrl": base_api_url}))
        path.chmod(0o600)
        return self.environment | {"BBJWT_INSTALLATION": str(path)}

    def mints(self) -> int:
        """How many tokens were issued so far."""
        assert self._emulator.stdin is not None
        assert self._emulator.stdout is not None
        self._emulator.stdin.write("mints\n")
        self._emulator.stdin.flush()
        return int(self._emulator.stdout.readline())

    def shell_environment(self, base_url: str, base_api_url: str) -> dict[str, str]:
        """An environment for the shell helper."""
        payload = self.known["payload"]
        return self.environment | {
            "CA": self.known["ca_file"],
            "API": base_api_url,
            "BASE": base_url,
            "APP_KEY": payload["key"],
            "CLIENT_KEY": payload["clientKey"],
            "SHARED_SECRET": payload["sharedSecret"],
        }


def timed(arguments: list[str], environment: dict[str, str], data: str) -> float:
    """Run a whole process; return its seconds."""
    started = time.perf_counter()
    done = subprocess.run(arguments, input=data.encode(), capture_output=True, env=environment)
    seconds = time.perf_counter() - started
    assert done.returncode == 0, done.stderr.decode()
    return seconds


def interleaved(cases: dict[str, Callable[[], float]], runs: int) -> dict[str, list[float]]:
    """Measure all cases in turn, after one run of each that does not count."""
    times: dict[str, list[float]] = {name: [] for name in cases}
    for number in range(runs + 1):
        for name, case in cases.items():
            seconds = case()
            if number:
                times[name].append(seconds)
    return times


def report(title: str, times: dict[str, list[float]], reference: str) -> None:
    """Print medians, and ratios of medians to the reference's."""
    print(f"\n{title} (medians of {len(times[reference])} whole processes, in turn)")
    base = statistics.median(times[reference])
    for name, measured in times.items():
        median = statistics.median(measured)
        print(f"  {name:<34}{median * 1000:9.1f} ms {median / base:7.2f} x")


def interpreter() -> str:
    """The Python that runs the command, as its first line names it; ours where that is a shell."""
    first = COMMAND.read_text().partition("\n")[0].removeprefix("#!").split(" ")[0]
    return first if "python" in first else sys.executable


def main() -> None:
    """Measure, and print."""
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder))
        direct = (bench.known["base_url"], bench.known["base_api_url"])
        relayed = tuple(DelayingRelay(url, ROUND_TRIP).url for url in direct)
        at_hand = bench.installation("direct", *direct)
        far = bench.installation("relayed", *relayed)
        host, far_host = urlsplit(direct[0]).netloc, urlsplit(relayed[0]).netloc
        ours = f"protocol=https\nhost={host}\npath=acme/widgets.git\n\n"
        theirs = "protocol=https\nhost=github.com\npath=acme/widgets.git\n\n"
        bare = [interpreter(), "-I", "-c", "pass"]
        helper = [str(COMMAND)]

        def mint(request: str, environment: dict[str, str]) -> Callable[[], float]:
            return lambda: timed([*helper, "--token-store", "none", "get"], environment, request)

        def anew(request: str, environment: dict[str, str]) -> Callable[[], float]:
            """Of a repository seen before: the one before was erased."""

            def run() -> float:
                timed([*helper, "erase"], environment, request)
                return timed([*helper, "get"], environment, request)

            return run

        def shell(base_url: str, base_api_url: str) -> Callable[[], float]:
            environment = bench.shell_environment(base_url, base_api_url)
            return lambda: timed(["sh", "-c", SHELL_HELPER], environment, "")

        times = interleaved(
            {
                "python -I -c pass": lambda: timed(bare, at_hand, ""),
                "get, cached": lambda: timed([*helper, "get"], at_hand, ours),
                "store": lambda: timed([*helper, "store"], at_hand, ours),
                "get, foreign host": lambda: timed([*helper, "get"], at_hand, theirs),
                "erase of nothing": lambda: timed([*helper, "erase"], at_hand, theirs),
            },
            RUNS,
        )
        report("The cached path", times, "python -I -c pass")
        with registered(bench, at_hand) as with_keyring:
            cases = {"curl and openssl": shell(*direct), "mint, no delay": mint(ours, at_hand)}
            if with_keyring:
                cases["the same, secret in a keyring"] = mint(ours, with_keyring)
            report("A mint, no delay", interleaved(cases, RUNS // 2), "curl and openssl")
        far_request = ours.replace(host, far_host)
        never_seen = far | {"XDG_RUNTIME_DIR": bench.environment["HOME"]}
        cases = {
            "curl and openssl": shell(*relayed),
            "mint": mint(far_request, never_seen),
            "mint anew": anew(far_request, far),
        }
        report("A mint, 80 ms round trip", interleaved(cases, max(5, RUNS // 3)), "curl and openssl")
        many_tokens(bench, helper, far, f"https://{far_host}")
        many_at_once(bench, helper, at_hand, ours)
        growth.measure(Path(folder) / "growth", helper[0], bench.known["payload"], bench.environment, ours, RUNS // 2)


@contextmanager
def registered(bench: Bench, environment: dict[str, str]) -> Iterator[dict[str, str]]:
    """The environment of a desktop whose keyring holds the secret; an empty one where there is no gnome-keyring."""
    if shutil.which("gnome-keyring-daemon") is None:
        yield {}
        return
    machine = Machine(Path(bench.environment["HOME"]), dict(bench.environment))
    with desktop.session(machine):
        machine.run(COMMAND, "register", environment["BBJWT_INSTALLATION"])
        yield machine.environment
        machine.run(COMMAND, "unregister", "acme")


def many_tokens(bench: Bench, helper: list[str], environment: dict[str, str], base_url: str) -> None:
    """Tokens for 200 repositories by one command."""
    urls = "\n".join(f"{base_url}/acme/many{number}" for number in range(MANY))
    before = bench.mints()
    seconds = timed([*helper, "token", "-"], environment, urls)
    print(f"\n{MANY} tokens by one command, 80 ms round trip\n  {seconds:.2f} s, {bench.mints() - before} mints")


def many_at_once(bench: Bench, helper: list[str], environment: dict[str, str], ours: str) -> None:
    """32 processes for one repository, then two for each of twelve."""
    print("\nMany at once")
    requests = {
        "32 processes, one repository": [ours] * 32,
        "12 repositories x 2 processes": [ours.replace("widgets", f"many{n}") for n in range(12)] * 2,
    }
    subprocess.run([*helper, "erase"], input=ours.encode(), env=environment, check=True)
    for name, inputs in requests.items():
        before = bench.mints()
        started = time.perf_counter()
        running = [
            subprocess.Popen([*helper, "get"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
            for _ in inputs
        ]
        answers = [process.communicate(data.encode())[0] for process, data in zip(running, inputs, strict=True)]
        seconds = time.perf_counter() - started
        assert all(b"password=" in one for one in answers)
        print(f"  {name:<34}{seconds * 1000:9.1f} ms {bench.mints() - before:7d} mints")


if __name__ == "__main__":
    main()
