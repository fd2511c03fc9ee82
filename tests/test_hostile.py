"""Hostile input: generated and fuzzed bytes, and the patterns of known credential leaks, each with its CVE."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from git_credential_bbjwt.core.record import parse_record
from tests.conftest import EVERYTHING, Workspace, answer, cannot, request
from tests.emulator import Fault
from tests.mint import Mint
from tests.properties import PROPERTIES, SEEDS

#: Seconds that the properties are fuzzed for; a long run sets BBJWT_FUZZ_SECONDS.
FUZZ_SECONDS = int(os.environ.get("BBJWT_FUZZ_SECONDS", "5"))


STUMBLING_BLOCKS = [b"", b"\n", b"\r", b"\0", b"%0a", b"%2f", b"..", b"/", b"@", b"\\", b'"', b"=", b"{", b"["]


@st.composite
def spoilt(draw: st.DrawFn, seeds: list[bytes]) -> bytes:
    """Return a good input with some pieces cut out, repeated, or replaced by bytes that parsers often misread."""
    data = draw(st.sampled_from(seeds))
    for _ in range(draw(st.integers(0, 4))):
        start = draw(st.integers(0, len(data)))
        end = draw(st.integers(start, min(len(data), start + 12)))
        piece = draw(st.sampled_from(STUMBLING_BLOCKS) | st.binary(max_size=6) | st.just(data[start:end] * 2))
        data = data[:start] + piece + data[end:]
    return data


#: Number of inputs that are generated for each parser.
MANY = 300 if EVERYTHING else 60


@pytest.mark.parametrize("name", PROPERTIES)
def test_generated_inputs(name: str) -> None:
    @settings(max_examples=MANY, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(st.binary(max_size=300) | spoilt(SEEDS[name]))
    @example(b"")
    def holds(data: bytes) -> None:
        PROPERTIES[name](data)

    holds()


def test_record_that_is_changed_is_good_at_first() -> None:
    assert parse_record(SEEDS["record"][0]) is not None


def test_fuzzed_inputs(tmp_path: Path) -> None:
    if importlib.util.find_spec("atheris") is None:
        cannot("atheris is not installed")
    count = tmp_path / "count"
    done = subprocess.run(
        [sys.executable, "-B", "-m", "tests.fuzz", str(FUZZ_SECONDS), count],
        capture_output=True,
        cwd=Path(__file__).parent.parent,
    )

    assert done.returncode == 0, done.stderr.decode("utf-8", "replace")[-4000:]
    tried = int(count.read_text())
    assert tried > 0


# The patterns of known leaks, sent to the installed command. The cache has a password for acme/widgets, so the helper
# would answer if it mistook the request for that repository's.

LEAKS: dict[str, bytes] = {
    "CVE-2020-5260: a line break in the path writes a host": b"protocol=https\nhost={evil}\npath=a\nhost={evil}\n\n",
    "CVE-2020-5260: the host comes after the blank line": b"protocol=https\npath=acme/widgets\n\nhost={good}\n",
    "CVE-2020-11008: no host": b"protocol=https\npath=acme/widgets\n\n",
    "CVE-2020-11008: an empty host": b"protocol=https\nhost=\npath=acme/widgets\n\n",
    "CVE-2020-11008: no protocol": b"host={good}\npath=acme/widgets\n\n",
    "a path that climbs": b"protocol=https\nhost={good}\npath=acme/../acme/widgets\n\n",
    "CVE-2024-50338: a carriage return ends the host": b"protocol=https\nhost={good}\rhost=x\npath=acme/widgets\n\n",
    "CVE-2024-50349: a host that is percent-encoded": b"protocol=https\nhost={good}%0a.evil\npath=acme/widgets\n\n",
    "CVE-2024-52006: a carriage return after the host": b"protocol=https\nhost={good}\r\npath=acme/widgets\r\n\r\n",
    "CVE-2024-53263: an encoded line break in the path": b"protocol=https\nhost={good}\npath=acme/widgets%0ahost=x\n\n",
    "CVE-2024-53858: a submodule on another host": b"protocol=https\nhost=evil.example\npath=acme/widgets\n\n",
    "CVE-2025-23040: a carriage return in the path": b"protocol=https\nhost={good}\npath=acme/widgets\rx\n\n",
    "a line longer than git's buffer": b"protocol=https\nhost={good}\npath=acme/widgets" + b"/" * 65_536 + b"\n\n",
    "a user and a host in the host": b"protocol=https\nhost={good}@evil.example\npath=acme/widgets\n\n",
    "a NUL in the host": b"protocol=https\nhost={good}\0.evil.example\npath=acme/widgets\n\n",
    "plain http": b"protocol=http\nhost={good}\npath=acme/widgets\n\n",
    "a name without the port": b"protocol=https\nhost=localhost\npath=acme/widgets\n\n",
}


def test_patterns_of_known_leaks_get_no_password(acme: Workspace) -> None:
    acme.get()
    before = len(acme.bitbucket.seen)
    good = acme.bitbucket.host.encode()
    for name, shape in LEAKS.items():
        data = shape.replace(b"{good}", good).replace(b"{evil}", b"evil.example")
        # To erase without a protocol concerns https too (git-credential(1)), and leaks nothing.
        for operation in ("get",) if "no protocol" in name else ("get", "erase"):
            done = acme.machine.bbjwt(operation, data=data, check=False)
            assert done.stdout == "", name
            assert done.stderr.count("\n") <= 1, name
    assert len(acme.bitbucket.seen) == before
    assert len(acme.machine.records()) == 1


def test_state_of_another_helper_is_ignored(acme: Workspace) -> None:
    token = answer(acme.get())["password"]
    for state in ("other:x", "bbjwt", "bbjwt:", f"bbjwt:{token}", "x" * 60_000, "\u20ac", "bbjwt:../../x"):
        found = answer(acme.get(extra=f"capability[]=state\nstate[]={state}\n"))
        assert found["password"] == token


def answer_with(injected: str) -> bytes:
    """Return a body with lines of the credential protocol in each member that is read."""
    text = f"x{injected}host=evil.example{injected}password=y{injected}"
    everywhere = {"access_token": text, "uuid": text, "full_name": text, "scopes": text, "error_description": text}
    return json.dumps({**everywhere, "error": text, "token_type": "bearer"}).encode()


@pytest.mark.parametrize("kind", ["api", "token"])
@pytest.mark.parametrize("injected", ["\n", "\r", "\r\n", "\0", "\u2028", "\x85", "\x1b[2J"])
def test_server_cannot_add_lines_to_messages(mint: Mint, kind: str, injected: str) -> None:
    for status in (200, 400, 403):
        mint.bitbucket.misbehave(kind, Fault(status=status, body=answer_with(injected)))
        mint.error()
        assert len(mint.lines) == 2
        assert all(line.isprintable() for line in mint.lines)
        mint.lines.clear()


@pytest.mark.parametrize(("kind", "status"), [("api", 200), ("token", 200), ("token", 400)])
def test_server_cannot_add_lines_to_the_protocol(acme: Workspace, kind: str, status: int) -> None:
    acme.bitbucket.misbehave(kind, Fault(status=status, body=answer_with("\n")))
    done = acme.get(check=False)

    assert done.stdout == "quit=1\n"
    assert done.stderr.count("\n") <= 2


def test_a_hostile_submodule_gets_nothing(acme: Workspace) -> None:
    machine, bitbucket = acme.machine, acme.bitbucket
    secret = bitbucket.host_repository("other/secret")
    hostile = [
        f"https://{bitbucket.host}@evil.invalid/acme/widgets",
        f"https://evil.invalid/{bitbucket.host}/acme/widgets",
        f"{bitbucket.base_url}/acme/../other/secret",
        f"{bitbucket.base_url}/other/secret",
        f"{bitbucket.base_url}%0a/acme/widgets",
        f"{bitbucket.base_url}/acme%2fwidgets",
    ]
    modules = "".join(f'[submodule "m{n}"]\n\tpath = m{n}\n\turl = {url}\n' for n, url in enumerate(hostile))
    outer = bitbucket.host_repository("acme/outer", {".gitmodules": modules})
    machine.git("clone", "-q", bitbucket.url(outer), "w")
    clone = machine.home / "w"
    for number, url in enumerate(hostile):
        machine.git("update-index", "--add", "--cacheinfo", f"160000,{'1' * 40},m{number}", cwd=clone)
        done = machine.git("submodule", "update", "--init", f"m{number}", cwd=clone, check=False)
        assert done.returncode != 0, url
    assert {token.repository for token in bitbucket.tokens.values()} <= {outer.uuid, acme.widgets.uuid}
    assert secret.uuid not in {token.repository for token in bitbucket.tokens.values()}


def test_emulator_distinguishes_the_helper_from_git(acme: Workspace) -> None:
    data = request(acme.url)
    acme.machine.bbjwt("get", data=data)
    assert all(seen.is_helper for seen in acme.bitbucket.seen)
