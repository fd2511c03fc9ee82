"""The package's own finder of modules: quicker than Python's search, and never wrong."""

from __future__ import annotations

import compileall
import os
import py_compile
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import PROJECT

SHOW = "import git_credential_bbjwt.{name} as m; print(type(m.__spec__.loader).__name__, m.__file__, {expression})"


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the package with compiled files."""
    shutil.copytree(PROJECT / "git_credential_bbjwt", tmp_path / "git_credential_bbjwt")
    compileall.compile_dir(tmp_path, quiet=2)
    return tmp_path


def shown(copy: Path, name: str, expression: str = "0") -> list[str]:
    """The loader's class of a module, its file, and the value of an expression in it."""
    run = f"import sys; sys.path.insert(0, {str(copy)!r}); " + SHOW.format(name=name, expression=expression)
    done = subprocess.run([sys.executable, "-IB", "-c", run], capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_compiled_module_and_package_are_found_at_once(copy: Path) -> None:
    assert shown(copy, "core.repository")[:2] == ["_Loader", f"{copy}/git_credential_bbjwt/core/repository.py"]
    assert shown(copy, "core")[:2] == ["_Loader", f"{copy}/git_credential_bbjwt/core/__init__.py"]


def test_changed_source_is_used(copy: Path) -> None:
    source = copy / "git_credential_bbjwt/core/repository.py"
    source.write_text(source.read_text() + "\nADDED = 5\n")

    assert shown(copy, "core.repository", "m.ADDED") == ["SourceFileLoader", str(source), "5"]


@pytest.mark.parametrize("damage", ["missing", "cut", "of another Python", "with a hash"])
def test_unusual_compiled_file_is_left_to_python(copy: Path, damage: str) -> None:
    source = copy / "git_credential_bbjwt/core/repository.py"
    (compiled,) = source.parent.glob("__pycache__/repository.*.pyc")
    content = compiled.read_bytes()
    compiled.unlink()
    if damage == "with a hash":
        py_compile.compile(str(source), invalidation_mode=py_compile.PycInvalidationMode.CHECKED_HASH)
    elif damage != "missing":
        compiled.write_bytes(content[:10] if damage == "cut" else b"\0\0\r\n" + content[4:])

    assert shown(copy, "core.repository", "m.is_name('a')")[2] == "True"


def test_module_that_is_not_there_is_an_import_error(copy: Path) -> None:
    os.remove(copy / "git_credential_bbjwt/core/repository.py")
    run = f"import sys; sys.path.insert(0, {str(copy)!r}); import git_credential_bbjwt.core.nothing"
    done = subprocess.run([sys.executable, "-IB", "-c", run], capture_output=True, text=True)

    assert "ModuleNotFoundError" in done.stderr
