"""Build a wheel for this system, with the command in the system's form and the shells' completions.

The completions are generated from the command line's own parser. The build backend loads this file by its path; it is
not part of the installed package.
"""

import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from hatchling.metadata.plugin.interface import MetadataHookInterface

_NAME = "git-credential-bbjwt"

#: The place of each shell's completions, below an installation's prefix.
_PLACES = {
    "bash": f"share/bash-completion/completions/{_NAME}",
    "zsh": f"share/zsh/site-functions/_{_NAME}",
    "fish": f"share/fish/vendor_completions.d/{_NAME}.fish",
}


class CommandHook(MetadataHookInterface):
    """Declares the command on Windows, where installers make an .exe only for an entry point."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Declare the entry point on Windows."""
        metadata["scripts"] = {_NAME: "git_credential_bbjwt.entry:console"} if sys.platform == "win32" else {}


class WheelHook(BuildHookInterface):  # type: ignore[type-arg]  # its parameter belongs to the backend
    """Adds generated files to a wheel, and names the system that the wheel is for."""

    _folder: "tempfile.TemporaryDirectory[str] | None" = None

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002  # the backend's signature
        """Write the completions, and add them and the command to the wheel."""
        if self.target_name != "wheel":
            return
        if sys.platform == "win32":
            build_data["tag"] = f"py3-none-{sysconfig.get_platform().replace('-', '_')}"
            return
        # On other systems the command is a file of this project and not an entry point, because the wrapper that pip
        # writes for an entry point imports `re`. That takes half of a Python start, and git runs the command twice per
        # fetch.
        build_data["shared_scripts"][f"git_credential_bbjwt/installed/{_NAME}"] = _NAME
        build_data["shared_data"][f"git_credential_bbjwt/installed/{_NAME}.1"] = f"share/man/man1/{_NAME}.1"
        import shtab

        sys.path.insert(0, self.root)
        sys.dont_write_bytecode = True  # The source folder must not change.
        from git_credential_bbjwt.commands.command_line import parser

        self._folder = tempfile.TemporaryDirectory()
        folder = self._folder.name
        for shell, place in _PLACES.items():
            script = Path(folder) / shell
            script.write_text(shtab.complete(parser(), shell), encoding="utf-8")
            build_data["shared_data"][str(script)] = place

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:  # noqa: ARG002  # as above
        """Remove the files that only the build needed."""
        if self._folder is not None:
            self._folder.cleanup()
