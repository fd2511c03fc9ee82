"""Build tools that call git: each brings in a private package through the helper, with nobody at a prompt."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from tests import tally
from tests.conftest import Workspace, answer, cannot, client_python, need

Recorder = Callable[[str, object], None]

# A build backend that needs nothing from a package index.
PYTHON_PACKAGE = {
    "pyproject.toml": '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    '[project]\nname = "private-package"\nversion = "1.0"\n',
    "backend.py": """\
import zipfile

METADATA = "Metadata-Version: 2.1\\nName: private-package\\nVersion: 1.0\\n"

def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    name = "private_package-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel_directory + "/" + name, "w") as wheel:
        wheel.writestr("private_package.py", "ANSWER = 42\\n")
        wheel.writestr("private_package-1.0.dist-info/METADATA", METADATA)
        wheel.writestr("private_package-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\\nTag: py3-none-any\\n")
        wheel.writestr("private_package-1.0.dist-info/RECORD", "")
    return name
""",
}


def version_of(acme: Workspace, program: str) -> str:
    """The version that ``program --version`` tells."""
    words = acme.machine.run(program, "--version").stdout.split()
    return next(word for word in words if word[0].isdigit())


def test_pip_installs_from_git(acme: Workspace, tmp_path: Path, record_property: Recorder) -> None:
    package = acme.bitbucket.host_repository("acme/python-package", PYTHON_PACKAGE)
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index", "--no-build-isolation"]
    acme.machine.run(*pip, "--target", tmp_path / "lib", f"git+{acme.bitbucket.url(package)}@main")

    assert (tmp_path / "lib/private_package.py").exists()
    assert acme.bitbucket.mints() == 1
    version = acme.machine.run(sys.executable, "-m", "pip", "--version").stdout.split()[1]
    record_property(*tally.worked_with("pip", version, "git+https"))


def test_npm_installs_from_git(acme: Workspace, record_property: Recorder) -> None:
    npm = need("npm")
    files = {"package.json": '{"name": "private-package", "version": "1.0.0"}', "index.js": "module.exports = 42;\n"}
    package = acme.bitbucket.host_repository("acme/npm-package", files)
    (acme.machine.home / "app").mkdir()
    (acme.machine.home / "app/package.json").write_text('{"name": "app", "version": "1.0.0"}')
    options = ["--no-audit", "--no-fund", "--no-update-notifier", "--offline"]
    url = f"git+{acme.bitbucket.url(package)}#main"
    acme.machine.run(npm, "install", *options, url, cwd=acme.machine.home / "app")

    assert (acme.machine.home / "app/node_modules/private-package/index.js").exists()
    assert acme.bitbucket.mints() == 1
    record_property(*tally.worked_with("npm", version_of(acme, npm), "git+https"))


def test_cargo_fetches_from_git(acme: Workspace, record_property: Recorder) -> None:
    cargo = need("cargo")
    files = {"Cargo.toml": '[package]\nname = "private-package"\nversion = "1.0.0"\n', "src/lib.rs": "pub fn f() {}\n"}
    package = acme.bitbucket.host_repository("acme/cargo-package", files)
    app = acme.machine.home / "app"
    (app / "src").mkdir(parents=True)
    (app / "src/lib.rs").write_text("pub use private_package::f;\n")
    (app / "Cargo.toml").write_text(
        '[package]\nname = "app"\nversion = "1.0.0"\n[dependencies]\n'
        f'private-package = {{ git = "{acme.bitbucket.url(package)}", branch = "main" }}\n'
    )
    # Where cargo is managed by rustup, it looks for its toolchains below the home it was installed to.
    acme.machine.environment |= {
        "RUSTUP_HOME": os.environ.get("RUSTUP_HOME", os.path.expanduser("~/.rustup")),
        "CARGO_NET_GIT_FETCH_WITH_CLI": "true",
    }
    if acme.machine.run(cargo, "--version", check=False).returncode != 0:
        cannot("the cargo on PATH does not run here: rustup has no toolchain below this home")
    acme.machine.run(cargo, "fetch", cwd=app)

    assert list((acme.machine.home / ".cargo/git/checkouts").rglob("lib.rs"))
    assert acme.bitbucket.mints() == 1
    record_property(*tally.worked_with("cargo", version_of(acme, cargo), "git dependencies, git-fetch-with-cli"))


def test_an_ssh_url_in_a_lock_file_goes_over_https(acme: Workspace, tmp_path: Path) -> None:
    acme.bitbucket.host_repository("acme/python-package", PYTHON_PACKAGE)
    acme.machine.bbjwt("configure", "--rewrite-ssh")
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index", "--no-build-isolation"]
    acme.machine.run(*pip, "--target", tmp_path / "lib", "git+ssh://git@localhost/acme/python-package.git@main")

    assert (tmp_path / "lib/private_package.py").exists()
    assert "password" in answer(acme.get())


# Those written in Python, which `tests/run --all` installs.


def noted(record_property: Recorder, package: str, feature: str) -> None:
    """Record the version of an installed package."""
    script = f"import importlib.metadata as m; print(m.version('{package}'))"
    version = subprocess.run([client_python(), "-I", "-c", script], capture_output=True, text=True, check=True).stdout
    record_property(*tally.worked_with(package, version.strip(), feature))


def test_gitpython_clones(acme: Workspace, record_property: Recorder) -> None:
    script = f"import git; git.Repo.clone_from({acme.url!r}, 'w').remotes.origin.fetch()"
    acme.machine.run(client_python(), "-c", script)

    assert (acme.machine.home / "w/README.md").exists()
    assert acme.bitbucket.mints() == 1
    noted(record_property, "GitPython", "clone, fetch")


def test_pre_commit_brings_in_hooks(acme: Workspace, record_property: Recorder) -> None:
    hook = "- id: ours\n  name: ours\n  entry: 'true'\n  language: system\n"
    hooks = acme.bitbucket.host_repository("acme/hooks", {".pre-commit-hooks.yaml": hook})
    app = acme.machine.home / "app"
    acme.machine.git("init", "-q", app)
    listed = f"repos:\n- repo: {acme.bitbucket.url(hooks)}\n  rev: main\n  hooks:\n  - id: ours\n"
    (app / ".pre-commit-config.yaml").write_text(listed)
    acme.machine.git("add", ".", cwd=app)
    done = acme.machine.run(client_python(), "-m", "pre_commit", "run", "--all-files", cwd=app)

    assert "Passed" in done.stdout
    assert acme.bitbucket.mints() == 1
    noted(record_property, "pre-commit", "hooks of a private repository")


def test_go_brings_in_modules(acme: Workspace, record_property: Recorder) -> None:
    """By the module's own name with the host's port, as Go has it for a server of one's own."""
    go = need("go")
    version = acme.machine.run(go, "version").stdout.split()[2].removeprefix("go")
    module = f"{acme.bitbucket.host.replace(':', '.')}/acme/tools"
    acme.bitbucket.host_repository("acme/tools", {"go.mod": f"module {module}.git\n\ngo 1.19\n", "t.go": "package t\n"})
    app = acme.machine.home / "app"
    app.mkdir()
    (app / "go.mod").write_text("module app\n\ngo 1.19\n")
    # Go names a module by its host, and there is no port in that: git puts the emulator in its place.
    acme.machine.git(
        "config", "--global", f"url.{acme.bitbucket.base_url}/.insteadOf", f"https://{module.split('/')[0]}/"
    )
    settings = {"GOPRIVATE": "*", "GOPROXY": "direct", "GOFLAGS": "-mod=mod -modcacherw", "GONOSUMDB": "*"}
    acme.machine.run(go, "get", f"{module}.git@main", cwd=app, env=acme.machine.env(settings))

    assert f"{module}.git" in (app / "go.mod").read_text()
    assert acme.bitbucket.mints() == 1
    record_property(*tally.worked_with("Go", version, "modules, with GOPRIVATE and GOPROXY=direct"))
