"""Generates the shell completions when a wheel is built, from the command line's own parser.

The build backend loads this file by its path; it is not part of the installed package.
"""

import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

_NAME = "git-credential-bbjwt"

#: Where each shell looks, below an installation's prefix.
_PLACES = {
    "bash": f"share/bash-completion/completions/{_NAME}",
    "zsh": f"share/zsh/site-functions/_{_NAME}",
    "fish": f"share/fish/vendor_completions.d/{_NAME}.fish",
}


class CompletionsHook(BuildHookInterface):  # type: ignore[type-arg]  # its parameter is the backend's own business
    """Adds one completion script a shell to the wheel."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002  # the backend's signature
        """Write the scripts, and tell the backend of them."""
        if self.target_name != "wheel":
            return
        import shtab

        sys.path.insert(0, self.root)
        sys.dont_write_bytecode = True  # The source folder is to stay as it is.
        from git_credential_bbjwt.commands import parser

        self._folder = tempfile.TemporaryDirectory()
        for shell, place in _PLACES.items():
            script = Path(self._folder.name) / shell
            script.write_text(shtab.complete(parser(), shell), encoding="utf-8")
            build_data["shared_data"][str(script)] = place

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:  # noqa: ARG002  # as above
        """Remove what was only needed for the build."""
        if self.target_name == "wheel":
            self._folder.cleanup()
