"""Makes a wheel for the system it is built on: the command as that starts it, and the shells' completions.

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

#: Where each shell looks, below an installation's prefix.
_PLACES = {
    "bash": f"share/bash-completion/completions/{_NAME}",
    "zsh": f"share/zsh/site-functions/_{_NAME}",
    "fish": f"share/fish/vendor_completions.d/{_NAME}.fish",
}


class CommandHook(MetadataHookInterface):
    """On Windows a command is an .exe, which installers make for an entry point and for nothing else."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Declare the entry point there."""
        metadata["scripts"] = {_NAME: "git_credential_bbjwt.entry:console"} if sys.platform == "win32" else {}


class WheelHook(BuildHookInterface):  # type: ignore[type-arg]  # its parameter is the backend's own business
    """Adds what is made when a wheel is built, and says for which system the wheel is."""

    _folder: "tempfile.TemporaryDirectory[str] | None" = None

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002  # the backend's signature
        """Write the completions, and tell the backend of them and of the command."""
        if self.target_name != "wheel":
            return
        if sys.platform == "win32":
            build_data["tag"] = f"py3-none-{sysconfig.get_platform().replace('-', '_')}"
            return
        # Elsewhere it is a file of ours and not an entry point: the wrapper that pip writes for one imports `re`, which
        # alone costs half of a Python start, and git runs this command twice per fetch.
        build_data["shared_scripts"][f"git_credential_bbjwt/installed/{_NAME}"] = _NAME
        build_data["shared_data"][f"git_credential_bbjwt/installed/{_NAME}.1"] = f"share/man/man1/{_NAME}.1"
        import shtab

        sys.path.insert(0, self.root)
        sys.dont_write_bytecode = True  # The source folder is to stay as it is.
        from git_credential_bbjwt.commands.command_line import parser

        self._folder = tempfile.TemporaryDirectory()
        folder = self._folder.name
        for shell, place in _PLACES.items():
            script = Path(folder) / shell
            script.write_text(shtab.complete(parser(), shell), encoding="utf-8")
            build_data["shared_data"][str(script)] = place

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:  # noqa: ARG002  # as above
        """Remove what was only needed for the build."""
        if self._folder is not None:
            self._folder.cleanup()
