"""``tests/run --mutants [MODULE ...]``: small changes of the package, each against the tests meant for its room.

A change that no test notices is printed, and is either a rule without a test or one that changes nothing. Known tools
for this change code in the process that tests it, and most tests here start the installed command; so each worker has a
copy of the project with an environment of its own, in which a changed file is put in place of the installed one.
"""

from __future__ import annotations

import argparse
import ast
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import NamedTuple

PROJECT = Path(__file__).parent.parent
PACKAGE = "git_credential_bbjwt"

#: The rooms of the trust decisions, and the tests meant for each, those first that notice most.
ROOMS = {
    "git/__init__": "tests/git/test_protocol.py tests/test_hostile.py tests/tokens tests/git/test_clone.py "
    "tests/broker/test_broker.py",
    "__init__": "tests/test_repository.py tests/git/test_protocol.py tests/test_hostile.py tests/commands tests/tokens",
    "installations/__init__": "tests/installations/test_installations.py tests/system tests/tokens tests/installations",
    "installations/old_registry": "tests/installations tests/system",
    "installations/catalogue": "tests/installations/test_installations.py tests/installations/test_registration.py "
    "tests/installations/test_many.py tests/git/test_configure.py tests/commands tests/bitbucket/test_facts.py "
    "tests/broker",
    "tokens/__init__": "tests/tokens tests/system tests/test_hostile.py",
    "tokens/cache": "tests/tokens/test_rules.py tests/tokens tests/commands tests/bitbucket/test_facts.py "
    "tests/installations tests/broker",
    "system/__init__": "tests/system/test_rules.py tests/system tests/tokens tests/installations "
    "tests/git/test_protocol.py tests/commands/test_commands.py",
    "system/private_folder": "tests/tokens/test_rules.py tests/system tests/tokens tests/installations",
    "bitbucket/api": "tests/bitbucket/test_answers.py tests/bitbucket tests/test_hostile.py tests/commands "
    "tests/broker/test_broker.py",
    "bitbucket/route": "tests/bitbucket/test_route.py tests/bitbucket/test_networks.py",
    "broker/ask": "tests/broker tests/test_hostile.py",
    "broker/serve": "tests/broker/test_rules.py tests/broker",
}

_HARDLY_EVER = "a time is hardly ever exactly this one"
_AT_A_TIME = "how much is read at a time is no rule"

#: Changes that change nothing, by room and changed line, and why.
CHANGE_NOTHING: dict[str, dict[str, str]] = {
    "bitbucket/api": {
        "if date is None or abs(date - time.time()) >= assertion.CLOCK_TOLERANCE:": _HARDLY_EVER,
    },
    "broker/serve": {
        "recent = [one for one in told if one.isdigit() and 0 < time.time() - int(one) < _LOOKUPS_WITHIN]": (
            _HARDLY_EVER
        ),
        "if len(known) == 2 and known[1].isdigit() and (int(known[1]) >= time.time()):": _HARDLY_EVER,
        "if left <= 1 or not select.select([0], [], [], left)[0]:": "who has dallied for nine seconds has one less",
        "piece = os.read(0, 65537)": _AT_A_TIME,
        "return ''.join((c if ' ' < c <= '~' else c.encode('unicode_escape').decode('ascii') for c in text))[:500]": (
            "a blank is escaped as a blank"
        ),
        "if left < 0 or not select.select([0], [], [], left)[0]:": "nothing comes in no time, either",
    },
    "git/__init__": {
        "return os.read(fd, 65537)": _AT_A_TIME,
    },
    "installations/__init__": {
        "if len(value) <= _LONGEST_PATH and os.path.lexists(value):": (
            "a path of that length is too long for the system, too"
        ),
        "position = data.find(b'\\\\u00', position + 5)": "two of them do not overlap",
        "return abs(time.time() - found.st_ctime) >= _SETTLED": _HARDLY_EVER,
        "while (chunk := os.read(fd, 2 << 20)):": _AT_A_TIME,
        "while (chunk := os.read(fd, 1 << 21)):": _AT_A_TIME,
        "return problem.strerror and 'it cannot be looked at'": "both say in words that it cannot be read",
        "return '-' if self.problem is not None else '!'": "any two marks will do",
    },
    "installations/old_registry": {
        "return gone.strerror and 'its folder is gone'": "both say in words that it cannot be read",
    },
    "system/__init__": {
        "A_FOLDER = os.O_RDONLY & os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC": (
            "what is not a folder fails at the next step"
        ),
        "data = os.read(fd, found.st_size + 2)": "one byte too many is enough to notice",
        "if sys.platform == 'win32' and +bool(home):": "tests/windows has it",
        **{
            f"return platformdirs.{one}(APP_NAME, appauthor=True)": "Windows alone has such a folder"
            for one in ("user_config_dir", "site_config_dir", "user_cache_dir")
        },
    },
    "tokens/__init__": {
        "_PARTS = 62": "any number of folders will do",
    },
    "tokens/cache": {
        "start = time.time_ns() // 1000 % len(names) if names else 1": "nothing is nothing from anywhere",
        "if self.folder is None or not 0 < self.folder.age(name) < _UUID_LIFE:": _HARDLY_EVER,
        "if time.monotonic() >= end:": _HARDLY_EVER,
        "if _is_ours(name) and self.folder.age(folder + name) >= longest:": _HARDLY_EVER,
        "beginning = name if ',' not in name else ''": "each record that is read says whose it is",
        "if _BESIDE not in name or (name.startswith(beginning) or ',' not in name):": (
            "each record that is read says whose it is"
        ),
        "if self.folder is None or (0 < self.folder.age(name) < _A_DAY and self.folder.read(name) is not None):": (
            _HARDLY_EVER
        ),
        "start = time.time_ns() // 1001 % len(names) if names else 0": "any place will do",
        "longest = 1 if ',' in name and _BESIDE not in name else _UUID_LIFE if name.endswith(_UUID) else _A_DAY": (
            "a record that is used up is not used, however long its file stays"
        ),
    },
}

_OPPOSITES: dict[type[ast.AST], type[ast.AST]] = {
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.And: ast.Or,
    ast.Or: ast.And,
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
}


class Mutant(NamedTuple):
    """One change: the room, which of its changes it is, and the line it is in, before and after."""

    room: str
    place: int
    number: int
    before: str
    after: str

    def text(self) -> str:
        """The whole module with it."""
        tree = _parsed(self.room)
        _change(list(_changes(tree))[self.place])
        return ast.unparse(tree) + "\n"


def mutants_of(room: str) -> list[Mutant]:
    """All changes there are of one token of a module's rules."""
    tree = _parsed(room)
    # To write all of a module out for each change of it takes long.
    around: dict[ast.AST, ast.AST] = {}
    for statement in (*tree.body, *(node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))):
        around |= dict.fromkeys(ast.walk(statement), statement)
    found = []
    for place, node in enumerate(list(_changes(tree))):
        before = ast.unparse(around[node]).splitlines()
        as_it_was = dict(vars(node))
        _change(node)
        after = ast.unparse(around[node]).splitlines()
        vars(node).update(as_it_was)
        different = [at for at, (one, other) in enumerate(zip(before, after, strict=False)) if one != other]
        if different:
            at = different[0]
            found.append(Mutant(room, place, getattr(node, "lineno", 0), before[at].strip(), after[at].strip()))
    return found


def _parsed(room: str) -> ast.Module:
    return ast.parse((PROJECT / PACKAGE / f"{room}.py").read_text())


def _changes(tree: ast.Module) -> Iterator[ast.AST]:
    skipped: set[ast.AST] = set()
    for node in ast.walk(tree):
        if node in skipped:
            continue
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and isinstance(body[0], ast.Expr):
            skipped.update(ast.walk(body[0]))  # A docstring.
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            skipped.update(ast.walk(node))
        if isinstance(node, ast.If) and ast.unparse(node.test).startswith("sys.platform == 'win32'"):
            for statement in node.body:  # What tests/windows is for.
                skipped.update(ast.walk(statement))
        if isinstance(node, (ast.JoinedStr, ast.arguments, ast.AnnAssign)):
            skipped.update(ast.walk(node))  # Words, declarations.
        elif isinstance(node, (ast.Compare, ast.BoolOp, ast.BinOp)):
            operator = node.ops[0] if isinstance(node, ast.Compare) else node.op
            if type(operator) in _OPPOSITES and not _is_type(node):
                yield node
        elif (isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not)) or (
            isinstance(node, ast.Constant) and type(node.value) in (bool, int)
        ):
            yield node


def _is_type(node: ast.AST) -> bool:
    """Whether this is a union of types."""
    return isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr) and "None" in ast.unparse(node)


def _change(node: ast.AST) -> None:
    if isinstance(node, ast.Compare):
        operator = _OPPOSITES[type(node.ops[0])]()
        assert isinstance(operator, ast.cmpop)
        node.ops = [operator, *node.ops[1:]]
    elif isinstance(node, (ast.BoolOp, ast.BinOp)):
        node.op = _OPPOSITES[type(node.op)]()  # type: ignore[assignment]  # of the same kind as it was
    elif isinstance(node, ast.UnaryOp):
        node.op = ast.UAdd()
        node.operand = ast.Call(ast.Name("bool", ast.Load()), [node.operand], [])
        ast.fix_missing_locations(node)
    elif isinstance(node, ast.Constant):
        node.value = not node.value if isinstance(node.value, bool) else node.value + 1  # type: ignore[operator]  # an int


class Worker:
    """A copy of the project with an environment of its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        left_out = shutil.ignore_patterns(".cache", ".git", "__pycache__")
        shutil.copytree(PROJECT, folder, ignore=left_out)
        self._python = folder / ".cache/tests/bin/python"
        install: list[str | Path] = [
            folder / "install.sh",
            "--environment",
            folder / ".cache/tests",
            folder / "tests/locked-test.txt",
        ]
        subprocess.run(install, check=True, capture_output=True)
        (self._installed,) = (folder / ".cache/tests/lib").glob(f"python3*/site-packages/{PACKAGE}")

    def notices(self, mutant: Mutant) -> bool:
        """Whether a test fails with this change."""
        places = [root / f"{mutant.room}.py" for root in (self._folder / PACKAGE, self._installed)]
        for place in places:
            place.write_text(mutant.text())
        try:
            return self.fails(mutant.room)
        except subprocess.TimeoutExpired:
            return True
        finally:
            for place in places:
                shutil.copy(PROJECT / PACKAGE / f"{mutant.room}.py", place)

    def fails(self, room: str) -> bool:
        """Whether a test fails with the room as it is here. Raises subprocess.TimeoutExpired."""
        words: list[str | Path] = [self._python, "-m", "pytest", "-x", "-q", "-n", "3", "-p", "no:cacheprovider"]
        words += [*ROOMS[room].split(), "tests/project/test_words.py"]
        done = subprocess.run(words, cwd=self._folder, capture_output=True, timeout=600, check=False)
        return done.returncode != 0


def main() -> int:
    """Try a sample; return how many went unnoticed."""
    parser = argparse.ArgumentParser(prog="tests/run --mutants")
    parser.add_argument("--sample", type=int, default=8, help="changes per room (default: 8); 0 is all of them")
    parser.add_argument("--seed", type=int, default=None, help="chooses the same ones again")
    parser.add_argument("rooms", nargs="*", metavar="MODULE", help=f"of {', '.join(ROOMS)}")
    arguments = parser.parse_args()
    seed = random.SystemRandom().randrange(10_000) if arguments.seed is None else arguments.seed
    chooser = random.Random(seed)  # noqa: S311  # no key
    chosen: list[Mutant] = []
    for room in arguments.rooms or ROOMS:
        every = mutants_of(room)
        chosen += every if not arguments.sample else chooser.sample(every, min(arguments.sample, len(every)))
    print(f"{len(chosen)} changes, seed {seed}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        workers: SimpleQueue[Worker] = SimpleQueue()
        for number in range(2):
            workers.put(Worker(Path(folder) / str(number)))

        def is_noticed(mutant: Mutant) -> bool:
            worker = workers.get()
            try:
                noticed = worker.notices(mutant)
            finally:
                workers.put(worker)
            if not noticed:
                why = CHANGE_NOTHING.get(mutant.room, {}).get(mutant.after)
                print(f"{mutant.room}.py:{mutant.number}: {why or 'NOBODY NOTICED'}", flush=True)
                print(f"  - {mutant.before}\n  + {mutant.after}", flush=True)
                return why is not None
            return True

        with ThreadPoolExecutor(2) as pool:
            noticed = list(pool.map(is_noticed, chosen))
        one_worker = workers.get()
        # Where all are noticed, something else might be.
        for room in dict.fromkeys(one.room for one in chosen):
            if all(was for one, was in zip(chosen, noticed, strict=True) if one.room == room):
                assert not one_worker.fails(room), f"the tests of {room} fail without any change"
    for room in dict.fromkeys(one.room for one in chosen):
        of = [was for one, was in zip(chosen, noticed, strict=True) if one.room == room]
        print(f"{room}: {sum(of)} of {len(of)} noticed")
    return noticed.count(False)


if __name__ == "__main__":
    sys.exit(min(main(), 100))
