"""``tests/run --benchmark``: the helper's cost, as ratios of whole processes that are measured in turn.

Only ratios are comparable: a machine's speed drifts, but both sides of a ratio were measured in turn. Each is printed
with the highest allowed ratio, and with the noise: the distance of two medians of the reference.
BBJWT_BENCHMARK_COMMAND names another command than the tests', such as install.sh's; BBJWT_BENCHMARK_RUNS how often the
shortest processes run, which the other numbers follow; ``--only RULE`` measures the rows of one rule and those that
are measured with them. Git's own round trips need git 2.46 or later: the newest of BBJWT_TEST_GITS, .cache/gits and the
system's is used.
"""

from __future__ import annotations

import argparse
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
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from tests import desktop, growth
from tests.conftest import GITS, PROJECT, Machine

COMMAND = Path(os.environ.get("BBJWT_BENCHMARK_COMMAND") or Path(sys.executable).with_name("git-credential-bbjwt"))
RUNS = int(os.environ.get("BBJWT_BENCHMARK_RUNS", "41"))
ROUND_TRIP = 0.080
MANY = 200
SUBMODULES = 20

#: The same two requests as a mint, in a shell.
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
    """A relay of TCP connections with an added round trip time, also for the handshake."""

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
        # A real client can send only after the handshake's round trip. Here it could send at once.
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


#: Runs processes for `Meter`, and reads what they print from a pipe, as git does: a file on a disk would cost a cached
#: answer 5 %. Linux counts the memory of a process before exec in its peak, so this process must be smaller than those
#: that it measures: it imports built-in modules only.
METER = r"""
import posix, sys, time
for line in sys.stdin:
    arguments, environment, given, shown = eval(line)
    reading, writing = posix.pipe()
    actions = [
        (posix.POSIX_SPAWN_OPEN, 0, given, posix.O_RDONLY, 0),
        (posix.POSIX_SPAWN_DUP2, writing, 1),
        (posix.POSIX_SPAWN_OPEN, 2, shown, posix.O_WRONLY | posix.O_CREAT | posix.O_TRUNC, 0o600),
    ]
    started = time.perf_counter()
    pid = posix.posix_spawn(arguments[0], arguments, environment, file_actions=actions)
    posix.close(writing)
    while posix.read(reading, 65536):
        pass
    _, status, usage = posix.wait4(pid, 0)
    seconds = time.perf_counter() - started
    posix.close(reading)
    status = posix.waitstatus_to_exitcode(status)
    print([status, seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024], flush=True)
"""


class Cost(NamedTuple):
    """The cost of a whole process: seconds, seconds of CPU with all its children, MiB at its peak."""

    wall: float
    cpu: float
    memory: float


class Meter:
    """A process that measures other processes."""

    def __init__(self, folder: Path) -> None:
        self._files = [str(folder / name) for name in ("given", "shown")]
        self._process = subprocess.Popen(
            [sys.executable, "-IS", "-c", METER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def run(self, arguments: list[str], environment: Mapping[str, str], data: str = "") -> Cost:
        """Run a process that must succeed."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        Path(self._files[0]).write_text(data)
        program = shutil.which(arguments[0], path=environment["PATH"])
        self._process.stdin.write(repr([[program, *arguments[1:]], dict(environment), *self._files]) + "\n")
        self._process.stdin.flush()
        status, *costs = json.loads(self._process.stdout.readline())
        assert status == 0, f"{arguments}: {Path(self._files[1]).read_text()}"
        return Cost(*costs)


Case = Callable[[], Cost]


class Bench:
    """One Bitbucket, and one machine that knows its installation."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.meter = Meter(folder)
        names = ["widgets", *(f"many{number}" for number in range(MANY))]
        arguments = [sys.executable, "-B", "-m", "tests.emulator", str(folder / "bitbucket"), *names]
        arguments += ["--submodules", str(SUBMODULES)]
        self._emulator = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._emulator.stdout is not None
        self.known: dict[str, Any] = json.loads(self._emulator.stdout.readline())
        self.direct = (self.known["base_url"], self.known["base_api_url"])
        self.relayed = tuple(DelayingRelay(url, ROUND_TRIP).url for url in self.direct)
        self.host, self.far_host = (urlsplit(urls[0]).netloc for urls in (self.direct, self.relayed))
        self.near = self.machine("near", *self.direct)
        self.far = self.machine("far", *self.relayed)

    def machine(self, name: str, base_url: str, base_api_url: str) -> dict[str, str]:
        """The environment of a machine whose helper reaches Bitbucket at these URLs."""
        path = self._folder / f"{name}.json"
        path.write_text(json.dumps(self.known["payload"] | {"baseUrl": base_url, "baseApiUrl": base_api_url}))
        path.chmod(0o600)
        return {"BBJWT_INSTALLATION": str(path)} | self.bare_machine(name)

    def bare_machine(self, name: str) -> dict[str, str]:
        """The environment of a machine without an installation."""
        home = self._folder / name
        for folder, mode in ((home, 0o755), (home / "run", 0o700)):
            folder.mkdir(mode=mode, exist_ok=True)
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "XDG_RUNTIME_DIR": str(home / "run"),
            "SSL_CERT_FILE": self.known["ca_file"],
            "GIT_SSL_CAINFO": self.known["ca_file"],
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_TERMINAL_PROMPT": "0",
        }

    def mints(self) -> int:
        """Return the number of tokens that were issued so far."""
        assert self._emulator.stdin is not None
        assert self._emulator.stdout is not None
        self._emulator.stdin.write("mints\n")
        self._emulator.stdin.flush()
        return int(self._emulator.stdout.readline())

    def request(self, *, far: bool = False, path: str = "acme/widgets.git", host: str = "") -> str:
        """Return a request as git sends it."""
        return f"protocol=https\nhost={host or (self.far_host if far else self.host)}\npath={path}\n\n"

    def helper(self, environment: Mapping[str, str], *words: str, data: str = "") -> Case:
        """Return a run of the helper."""
        return lambda: self.meter.run([str(COMMAND), *words], environment, data)

    def after(self, preparation: Case, case: Case) -> Case:
        """Return a run after another run that is not measured."""

        def run() -> Cost:
            preparation()
            return case()

        return run

    def shell_helper(self, base_url: str, base_api_url: str) -> Case:
        """Return a run of a helper that uses curl and openssl."""
        payload = self.known["payload"]
        environment = self.near | {
            "CA": self.known["ca_file"],
            "API": base_api_url,
            "BASE": base_url,
            "APP_KEY": payload["key"],
            "CLIENT_KEY": payload["clientKey"],
            "SHARED_SECRET": payload["sharedSecret"],
        }
        return lambda: self.meter.run(["sh", "-c", SHELL_HELPER], environment)


def in_turn(cases: dict[str, Case], runs: int) -> dict[str, list[Cost]]:
    """Measure all cases in turn, after one run of each that is not measured."""
    costs: dict[str, list[Cost]] = {name: [] for name in cases}
    for number in range(runs + 1):
        for name, case in cases.items():
            cost = case()
            if number:
                costs[name].append(cost)
    return costs


def median(costs: list[Cost], of: str = "wall") -> float:
    """Return the median of seconds, of CPU time or of memory."""
    return float(statistics.median(getattr(cost, of) for cost in costs))


def noise(costs: list[Cost], of: str = "wall") -> str:
    """Return the distance of the medians of every second run and of the others; a dash for too few runs."""
    if len(costs) < 4:
        return "–"
    return f"{abs(median(costs[::2], of) / median(costs[1::2], of) - 1):.0%}"


def heading(title: str) -> None:
    """Print the head of a part of the table."""
    print(f"\n{title}\n  {'rule':<7}{'':<58}{'ratio':>7}{'at most':>9}{'noise':>8}", flush=True)


def compare(
    rule: str, what: str, costs: dict[str, list[Cost]], name: str, reference: str, most: float, of: str = "wall"
) -> None:
    """Print a ratio of two medians, the highest allowed ratio, and the noise of both."""
    ratio = median(costs[name], of) / median(costs[reference], of)
    apart = noise(costs[reference], of)
    print(f"  {rule:<7}{what:<58}{ratio:>7.2f}{most:>9.2f}{apart:>8}{'  over' if ratio > most else ''}", flush=True)


def figure(rule: str, what: str, value: float, most: float, unit: str) -> None:
    """Print an absolute figure."""
    over = "  over" if value > most else ""
    print(f"  {rule:<7}{what:<58}{value:>7.1f}{most:>9.1f} {unit}{over}", flush=True)


def interpreter() -> str:
    """Return the Python that the command's first line names; if that is a shell, the tests' Python."""
    first = COMMAND.read_text().partition("\n")[0].removeprefix("#!").split(" ")[0]
    return first if "python" in first else sys.executable


def newest_git() -> tuple[str, tuple[int, ...]]:
    """Return the newest available git and its version."""
    found = {*GITS, *map(str, (PROJECT / ".cache/gits").glob("*/bin/git"))}

    def version(git: str) -> tuple[int, ...]:
        printed = subprocess.run([git, "version"], capture_output=True, text=True, check=True).stdout
        return tuple(int(part) for part in printed.split()[2].split(".")[:2])

    return max(((git, version(git)) for git in found), key=lambda one: one[1])


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(prog="tests/run --benchmark")
    rules = list(dict.fromkeys(rule for part in PARTS.values() for rule in part))
    parser.add_argument("--only", choices=rules, metavar="RULE", help=f"measure one rule: {', '.join(rules)}")
    only = parser.parse_args().only
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder))
        for measure, part in PARTS.items():
            if only in (None, *part):
                measure(bench)
    print(
        f"\n{time.monotonic() - started:.0f} s; medians of {RUNS} runs of the shortest processes, fewer of longer ones"
    )


def cached_path(bench: Bench) -> None:
    """Measure answers without a request to Bitbucket, compared with the bare interpreter."""
    heading("The cached path, beside `python -I -c pass`")
    bare = [interpreter(), "-I", "-c", "pass"]
    costs = in_turn(
        {
            "bare": lambda: bench.meter.run(bare, bench.near),
            "cached": bench.helper(bench.near, "get", data=bench.request()),
            "store": bench.helper(bench.near, "store", data=bench.request()),
            "foreign": bench.helper(bench.near, "get", data=bench.request(host="github.com")),
        },
        RUNS,
    )
    compare("13.3", "`get` from the cache", costs, "cached", "bare", 1.03)
    compare("13.3", "`get` for a foreign host", costs, "foreign", "bare", 1.03)
    compare("13.4", "`store`", costs, "store", "bare", 0.95)
    compare("13.10", "`get` from the cache: memory", costs, "cached", "bare", 1.07, "memory")


def a_mint(bench: Bench) -> None:
    """Measure mints, compared with the helper that uses curl and openssl."""
    heading("A mint, beside curl and openssl")
    near = {
        "shell": bench.shell_helper(*bench.direct),
        "mint": bench.helper(bench.near, "--token-store", "none", "get", data=bench.request()),
    }
    costs = in_turn(near, RUNS // 2)
    compare("13.5", "no delay", costs, "mint", "shell", 1.10)
    compare("13.5", "no delay: CPU", costs, "mint", "shell", 0.90, "cpu")
    request = bench.request(far=True)
    get, erase = (bench.helper(bench.far, operation, data=request) for operation in ("get", "erase"))
    new = bench.machine("new", *bench.relayed)
    with registered(bench) as desk:
        cases = {"shell": bench.shell_helper(*bench.relayed), "remembered": bench.after(erase, get)}
        for name, environment in {"mint": new, "keyring": desk}.items():
            if environment:
                get = bench.helper(environment, "get", data=request)
                cases[name] = bench.after(partial(forgotten, bench, environment), get)
        costs = in_turn(cases, RUNS // 4)
    compare("13.6", "80 ms round trip", costs, "mint", "shell", 0.75)
    compare("13.6", "80 ms, the repository's UUID remembered", costs, "remembered", "shell", 0.62)
    if "keyring" in costs:
        compare("13.7", "80 ms, secret in gnome-keyring / injected", costs, "keyring", "mint", 1.15)
    else:
        print("  13.7   needs gnome-keyring")
    figure("13.10", "memory", median(costs["mint"], "memory"), 28, "MiB")


def forgotten(bench: Bench, environment: Mapping[str, str]) -> Cost:
    """Drop the helper's tokens and UUIDs."""
    for folder in (Path(environment["HOME"]) / ".cache", Path(environment["XDG_RUNTIME_DIR"])):
        shutil.rmtree(folder / "git-credential-bbjwt", ignore_errors=True)
    return bench.meter.run(["true"], environment)


@contextmanager
def registered(bench: Bench) -> Iterator[dict[str, str]]:
    """Provide the environment of a desktop with the secret in its keyring; empty if there is no gnome-keyring."""
    if shutil.which("gnome-keyring-daemon") is None:
        yield {}
        return
    machine = Machine(Path(bench.far["HOME"]).parent / "desktop", bench.bare_machine("desktop"))
    with desktop.session(machine):
        machine.run(COMMAND, "register", bench.far["BBJWT_INSTALLATION"])
        yield machine.environment
        machine.run(COMMAND, "unregister", "acme")


def many_tokens(bench: Bench) -> None:
    """Measure tokens for many repositories by one command, and many processes at once."""
    heading(f"Tokens for {MANY} repositories by one command, 80 ms")
    urls = "\n".join(f"https://{bench.far_host}/acme/many{number}" for number in range(MANY))
    tokens = bench.after(lambda: forgotten(bench, bench.far), bench.helper(bench.far, "token", "-", data=urls))
    costs = in_turn({"tokens": tokens}, 2)["tokens"]
    figure("13.8", "time", median(costs), 2.0, "s")
    figure("13.8", "memory", median(costs, "memory"), 45, "MiB")


def git_itself(bench: Bench) -> None:
    """Measure git with a cached token that it sends at once, compared with other ways."""
    heading("git with a cached token, 80 ms, `configure --proactive`")
    git, version = newest_git()
    if version < (2, 46):
        print(f"  13.9   needs git 2.46 or later, and {git} is {'.'.join(map(str, version))}: .ci/gits builds some")
        return
    url = f"https://{bench.far_host}/acme/widgets.git"
    with_name = url.replace("://", "://someone@")
    environments = {}
    for name, words in {"plain": [], "proactive": ["--proactive"], "store": []}.items():
        environments[name] = bench.far | {"GIT_CONFIG_GLOBAL": str(Path(bench.far["HOME"]) / f"{name}.gitconfig")}
        Path(environments[name]["GIT_CONFIG_GLOBAL"]).touch()
        if name != "store":
            configure = [str(COMMAND), "configure", "--workspace", "acme", *words]
            bench.meter.run(configure, environments[name])
    token = subprocess.run(
        [COMMAND, "token", url], capture_output=True, env=bench.far, text=True, check=True
    ).stdout.strip()
    stored = Path(bench.far["HOME"]) / ".git-credentials"
    stored.write_text(f"https://x-token-auth:{token}@{bench.far_host}\n")
    stored.chmod(0o600)
    proactive = f'[http "https://{bench.far_host}/acme"]\n\tproactiveAuth = basic\n'
    Path(environments["store"]["GIT_CONFIG_GLOBAL"]).write_text(f"[credential]\n\thelper = store\n{proactive}")
    clone = str(Path(bench.far["HOME"]) / "clone")
    bench.meter.run([git, "clone", "-q", "--bare", url, clone], environments["plain"])

    def run(name: str, *words: str) -> Case:
        return lambda: bench.meter.run([git, *words], environments[name])

    ways = {"plain": ("plain", url), "proactive": ("proactive", url), "stored": ("store", url)}
    ways |= {"name": ("plain", with_name), "name, proactive": ("proactive", with_name)}
    for operation, words in {"ls-remote": ["ls-remote"], "fetch": [f"--git-dir={clone}", "fetch", "-q"]}.items():
        costs = in_turn({way: run(name, *words, at) for way, (name, at) in ways.items()}, RUNS // 5)
        compare("13.9", f"{operation} / without proactiveAuth", costs, "proactive", "plain", 0.90)
        compare("13.9", f"{operation}, a user name in the URL / without", costs, "name, proactive", "name", 0.76)
        compare("13.9", f"{operation} / credential.helper=store", costs, "proactive", "stored", 1.15)


def submodules(bench: Bench) -> None:
    """Measure a clone with submodules without cached tokens, compared with cached tokens."""
    heading(f"Clone with {SUBMODULES} submodules at -j 8, 80 ms")
    settings = Path(bench.far["HOME"]) / "submodules.gitconfig"
    environment = bench.far | {"GIT_CONFIG_GLOBAL": str(settings)}
    settings.write_text(f'[url "https://{bench.far_host}/"]\n\tinsteadOf = {bench.direct[0]}/\n')
    bench.meter.run([str(COMMAND), "configure"], environment)
    clone = Path(bench.far["HOME"]) / "super"
    words = ["clone", "-q", "--recurse-submodules", "-j", "8", f"https://{bench.far_host}/acme/super.git", str(clone)]

    def run(*, cold: bool) -> Case:
        def cloned() -> Cost:
            shutil.rmtree(clone, ignore_errors=True)
            if cold:
                forgotten(bench, environment)
            return bench.meter.run([newest_git()[0], *words], environment)

        return cloned

    costs = in_turn({"cold": run(cold=True), "kept": run(cold=False)}, 2)
    compare("13.11", "cold / with kept tokens", costs, "cold", "kept", 1.45)


def many_installations(bench: Bench) -> None:
    """Measure with many installations and cached tokens."""
    heading(f"With {max(growth.SIZES):,} installations and cached tokens, beside one")
    folder, machine = Path(bench.far["HOME"]).parent / "growth", bench.bare_machine("grown")
    growth.ratios(folder, str(COMMAND), bench.known["payload"], machine, RUNS // 4)


#: The functions that measure the rows, with their rules.
PARTS = {
    cached_path: ("13.3", "13.4", "13.10"),
    a_mint: ("13.5", "13.6", "13.7", "13.10"),
    many_tokens: ("13.8",),
    git_itself: ("13.9",),
    submodules: ("13.11",),
    many_installations: ("13.1",),
}


if __name__ == "__main__":
    main()
