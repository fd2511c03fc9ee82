"""Build tools that call git: each fetches a private package by the helper, without a prompt."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import tally
from tests.conftest import COMMAND, PROJECT, Workspace, answer, cannot, client_python, need

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
    """Return the version that ``program --version`` prints."""
    words = acme.machine.run(program, "--version").stdout.split()
    return next(word for word in words if word[0].isdigit())


def written(tool: str, address: str) -> None:
    """Assert that README has the text that the test of ``tool`` has just tried, for Bitbucket itself."""
    rows = [row for row in (PROJECT / "README.md").read_text().splitlines() if row.startswith("|")]
    (row,) = [row for row in rows if tool in row.split("|")[1].replace(",", "").split()]
    assert address in row


def test_pip_installs_from_git(acme: Workspace, tmp_path: Path, record_property: Recorder) -> None:
    package = acme.bitbucket.host_repository("acme/python-package", PYTHON_PACKAGE)
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index", "--no-build-isolation"]
    acme.machine.run(*pip, "--target", tmp_path / "lib", f"git+{acme.bitbucket.url(package)}@main")

    assert (tmp_path / "lib/private_package.py").exists()
    assert acme.bitbucket.mints() == 1
    written("pip", "git+https://bitbucket.org/acme/python-package.git@main")
    version = acme.machine.run(sys.executable, "-m", "pip", "--version").stdout.split()[1]
    record_property(*tally.worked_with("pip", version))


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
    written("npm", "git+https://bitbucket.org/acme/npm-package.git#main")
    record_property(*tally.worked_with("npm", version_of(acme, npm)))


@pytest.mark.parametrize("how", ["git-fetch-with-cli", "its own git, by configure", "by exec"])
def test_cargo_fetches_from_git(acme: Workspace, record_property: Recorder, how: str) -> None:
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
    # If rustup manages cargo, cargo looks for its toolchains below the home that it was installed in.
    toolchains = os.environ.get("RUSTUP_HOME", os.path.expanduser("~/.rustup"))
    if os.path.isdir(toolchains):  # rustup would make the folder.
        acme.machine.environment["RUSTUP_HOME"] = toolchains
    if acme.machine.run(cargo, "--version", check=False).returncode != 0:
        cannot("the cargo on PATH does not run here: rustup has no toolchain below this home")
    version = version_of(acme, cargo)
    if how == "git-fetch-with-cli":
        acme.machine.environment["CARGO_NET_GIT_FETCH_WITH_CLI"] = "true"
    if how == "by exec":
        (acme.machine.home / ".gitconfig").unlink()
        acme.machine.run(COMMAND, "exec", "--", cargo, "fetch", cwd=app)
    else:
        # libgit2 looks for a section with the host but without its port. Bitbucket Cloud has no port.
        acme.machine.git("config", "--global", "credential.https://localhost.helper", "bbjwt")
        acme.machine.git("config", "--global", "credential.https://localhost.useHttpPath", "true")
        acme.machine.run(cargo, "fetch", cwd=app)

    assert list((acme.machine.home / ".cargo/git/checkouts").rglob("lib.rs"))
    assert acme.bitbucket.mints() == 1
    written("cargo", 'private-package = { git = "https://bitbucket.org/acme/cargo-package.git"')
    record_property(*tally.worked_with("cargo", version))


@pytest.mark.parametrize("tool", ["pnpm", "yarn"])
def test_other_managers_of_node_packages(acme: Workspace, record_property: Recorder, tool: str) -> None:
    program = PROJECT / ".cache/clients-js/node_modules/.bin" / tool
    if not program.exists():
        cannot(f"{tool} is not installed: tests/run --all does that")
    files = {"package.json": '{"name": "private-package", "version": "1.0.0"}', "index.js": "module.exports = 42;\n"}
    package = acme.bitbucket.host_repository("acme/npm-package", files)
    app = acme.machine.home / "app"
    app.mkdir()
    (app / "package.json").write_text('{"name": "app", "version": "1.0.0"}')
    words = ["add", "--offline"] if tool == "pnpm" else ["add", "--offline", "--ignore-engines"]
    acme.machine.run(program, *words, f"git+{acme.bitbucket.url(package)}#main", cwd=app)

    assert (app / "node_modules/private-package/index.js").exists()
    assert acme.bitbucket.mints() == 1
    written(tool, "git+https://bitbucket.org/acme/npm-package.git#main")
    record_property(*tally.worked_with(tool, version_of(acme, str(program))))


def test_composer_installs_from_git(acme: Workspace, record_property: Recorder) -> None:
    composer = need("composer")
    package = acme.bitbucket.host_repository("acme/php-package", {"composer.json": '{"name": "acme/php-package"}'})
    app = acme.machine.home / "app"
    app.mkdir()
    repository = {"type": "git", "url": acme.bitbucket.url(package)}
    wanted = {"repositories": [repository, {"packagist.org": False}], "require": {"acme/php-package": "dev-main"}}
    (app / "composer.json").write_text(json.dumps(wanted))
    options = ["--no-interaction", "--no-plugins", "--prefer-source", "--no-progress"]
    environment = acme.machine.env(COMPOSER_ALLOW_SUPERUSER="1")
    acme.machine.run(composer, "install", *options, cwd=app, env=environment)

    assert (app / "vendor/acme/php-package/composer.json").exists()
    assert acme.bitbucket.mints() == 1
    written("composer", '"type": "git", "url": "https://bitbucket.org/acme/php-package.git"')
    shown = acme.machine.run(composer, "--version", "--no-ansi", env=environment).stdout.split()
    record_property(*tally.worked_with("composer", shown[shown.index("version") + 1]))


def test_bundler_installs_from_git(acme: Workspace, record_property: Recorder) -> None:
    bundle = need("bundle")
    spec = "Gem::Specification.new { |s| s.name = 'priv'; s.version = '1.0'; s.summary = 'x'; s.authors = ['x'] }\n"
    package = acme.bitbucket.host_repository("acme/gem", {"priv.gemspec": spec})
    app = acme.machine.home / "app"
    app.mkdir()
    (app / "Gemfile").write_text(f"gem 'priv', git: '{acme.bitbucket.url(package)}', branch: 'main'\n")
    environment = acme.machine.env(BUNDLE_PATH=str(app / "gems"), BUNDLE_SILENCE_ROOT_WARNING="1")
    acme.machine.run(bundle, "install", cwd=app, env=environment)

    assert list((app / "gems").rglob("priv.gemspec"))
    assert acme.bitbucket.mints() == 1
    written("bundler", 'git: "https://bitbucket.org/acme/gem.git", branch: "main"')
    record_property(*tally.worked_with("bundler", version_of(acme, bundle)))


def test_ssh_url_in_a_lock_file_is_fetched_by_https(acme: Workspace, tmp_path: Path) -> None:
    acme.bitbucket.host_repository("acme/python-package", PYTHON_PACKAGE)
    acme.machine.bbjwt("configure", "--rewrite-ssh")
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index", "--no-build-isolation"]
    acme.machine.run(*pip, "--target", tmp_path / "lib", "git+ssh://git@localhost/acme/python-package.git@main")

    assert (tmp_path / "lib/private_package.py").exists()
    assert "password" in answer(acme.get())


def test_a_terraform_module_is_a_clone(acme: Workspace) -> None:
    """Terraform itself is not packaged. It clones the URL after git::."""
    written("Terraform", 'source = "git::https://bitbucket.org/acme/widgets.git"')
    acme.machine.git("clone", "-q", "--depth=1", acme.url, "module")

    assert (acme.machine.home / "module/README.md").exists()


# Tools written in Python, which `tests/run --all` installs.


def noted(record_property: Recorder, package: str) -> None:
    """Record the version of an installed package."""
    script = f"import importlib.metadata as m; print(m.version('{package}'))"
    version = subprocess.run([client_python(), "-I", "-c", script], capture_output=True, text=True, check=True).stdout
    record_property(*tally.worked_with(package, version.strip()))


def test_gitpython_clones(acme: Workspace, record_property: Recorder) -> None:
    script = f"import git; git.Repo.clone_from({acme.url!r}, 'w').remotes.origin.fetch()"
    acme.machine.run(client_python(), "-c", script)

    assert (acme.machine.home / "w/README.md").exists()
    assert acme.bitbucket.mints() == 1
    noted(record_property, "GitPython")


def test_poetry_adds_from_git(acme: Workspace, record_property: Recorder) -> None:
    package = acme.bitbucket.host_repository("acme/python-package", PYTHON_PACKAGE)
    app = acme.machine.home / "app"
    app.mkdir()
    (app / "pyproject.toml").write_text(
        '[project]\nname = "app"\nversion = "1"\nrequires-python = ">=3.10"\n[tool.poetry]\npackage-mode = false\n'
    )
    settings = {"PYTHON_KEYRING_BACKEND": "keyring.backends.null.Keyring", "POETRY_VIRTUALENVS_CREATE": "0"}
    words = ["-m", "poetry", "add", "--no-interaction", "--lock", f"git+{acme.bitbucket.url(package)}#main"]
    acme.machine.run(client_python(), *words, cwd=app, env=acme.machine.env(settings))

    assert "private-package" in (app / "poetry.lock").read_text()
    assert acme.bitbucket.mints() == 1
    written("poetry", "git+https://bitbucket.org/")
    noted(record_property, "poetry")


def test_pre_commit_fetches_hooks(acme: Workspace, record_property: Recorder) -> None:
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
    noted(record_property, "pre-commit")


def test_go_fetches_modules(acme: Workspace, record_property: Recorder) -> None:
    go = need("go")
    version = acme.machine.run(go, "version").stdout.split()[2].removeprefix("go")
    module = "bitbucket.org/acme/tools"
    acme.bitbucket.host_repository("acme/tools", {"go.mod": f"module {module}\n\ngo 1.19\n", "t.go": "package t\n"})
    app = acme.machine.home / "app"
    app.mkdir()
    (app / "go.mod").write_text("module app\n\ngo 1.19\n")
    # Go names a module by its host, which git replaces by the emulator's.
    acme.machine.git("config", "--global", f"url.{acme.bitbucket.base_url}/.insteadOf", "https://bitbucket.org/")
    settings = {"GOPRIVATE": "bitbucket.org/acme/*", "GOPROXY": "direct", "GOFLAGS": "-modcacherw"}
    acme.machine.run(go, "get", f"{module}@main", cwd=app, env=acme.machine.env(settings))

    assert module in (app / "go.mod").read_text()
    assert acme.bitbucket.mints() == 1
    written("Go", f"GOPRIVATE={settings['GOPRIVATE']} GOPROXY=direct go get {module}@main")
    record_property(*tally.worked_with("Go", version))
