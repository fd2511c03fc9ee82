"""``tests/run --mutants [MODULE ...]``: make small changes of the package, and run the tests of each changed module.

A change that no test notices is printed. Either its rule has no test, or the change has no effect. Known tools for this
change code in the process of the tests, but most tests here start the installed command. So each worker has a copy of
the project with its own environment, in which a changed file replaces the installed one.
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

#: The modules that make decisions of trust, and the tests of each, those first that notice most.
ROOMS = {
    "core/protocol": "tests/core/test_protocol.py tests/test_hostile.py tests/tokens tests/git tests/serving",
    "core/repository": "tests/test_repository.py tests/core/test_protocol.py tests/test_hostile.py tests/commands",
    "installations/payload": "tests/installations/test_payload.py tests/installations/test_registration.py",
    "installations/registry_changes": "tests/installations",
    "installations/wrappers": "tests/installations/test_payload.py",
    "core/source": "tests/installations/test_installations.py tests/system tests/tokens tests/installations",
    "installations/catalogue": "tests/installations tests/git/test_configure.py tests/commands tests/serving",
    "core/record": "tests/tokens tests/system tests/test_hostile.py",
    "tokens/cache": "tests/tokens tests/commands tests/bitbucket/test_facts.py tests/installations tests/serving",
    "core/files": "tests/system/test_rules.py tests/installations",
    "system/private_folder": "tests/tokens tests/system tests/installations",
    "bitbucket/api": "tests/bitbucket tests/test_hostile.py tests/commands tests/serving/test_broker.py",
    "network/route": "tests/network",
    "vendors/broker": "tests/serving tests/test_hostile.py",
    "serving/serve": "tests/serving",
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
    """One change: the module, the change's place in it, and its line with its number, before and after."""

    room: str
    place: int
    number: int
    before: str
    after: str

    def text(self) -> str:
        """Return the whole module with the change."""
        tree = _parsed(self.room)
        _change(list(_changes(tree))[self.place])
        return ast.unparse(tree) + "\n"


def mutants_of(room: str) -> list[Mutant]:
    """Return all changes of one token in a module's rules."""
    tree = _parsed(room)
    # Only the statement around a change is written out, because a whole module takes long.
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
            for statement in node.body:  # The tests of Windows cover this.
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
    """Return whether this is a union of types."""
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
    """A copy of the project with its own environment."""

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
        """Return whether a test fails with this change."""
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
        """Return whether a test fails with the module in its present state. Raises subprocess.TimeoutExpired."""
        words: list[str | Path] = [self._python, "-m", "pytest", "-x", "-q", "-n", "3", "-p", "no:cacheprovider"]
        words += ROOMS[room].split()
        done = subprocess.run(words, cwd=self._folder, capture_output=True, timeout=600, check=False)
        return done.returncode != 0


def main() -> int:
    """Test a sample of the changes; return the number of unnoticed changes."""
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
                print(f"{mutant.room}.py:{mutant.number}: no test noticed", flush=True)
                print(f"  - {mutant.before}\n  + {mutant.after}", flush=True)
                return False
            return True

        with ThreadPoolExecutor(2) as pool:
            noticed = list(pool.map(is_noticed, chosen))
        one_worker = workers.get()
        # If all changes are noticed, the tests might fail for another reason.
        for room in dict.fromkeys(one.room for one in chosen):
            if all(was for one, was in zip(chosen, noticed, strict=True) if one.room == room):
                assert not one_worker.fails(room), f"the tests of {room} fail without any change"
    for room in dict.fromkeys(one.room for one in chosen):
        of = [was for one, was in zip(chosen, noticed, strict=True) if one.room == room]
        print(f"{room}: {sum(of)} of {len(of)} noticed")
    return noticed.count(False)


if __name__ == "__main__":
    sys.exit(min(main(), 100))
