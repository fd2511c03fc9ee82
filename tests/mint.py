"""The requests of a mint in the tests' own process, which costs a tenth of a process of the helper."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import pytest

from git_credential_bbjwt.bitbucket.api import Bitbucket
from git_credential_bbjwt.bitbucket.responses import AccessToken
from git_credential_bbjwt.bitbucket.signing import SecretSigner
from git_credential_bbjwt.core import output
from git_credential_bbjwt.core.failures import CredentialError
from git_credential_bbjwt.core.repository import Repository
from git_credential_bbjwt.git.http_settings import HttpSettings
from git_credential_bbjwt.network import connections
from git_credential_bbjwt.system.budget import Budget
from tests.conftest import Machine
from tests.emulator import App, Emulator, Fault


def answers(**changes: Any) -> Fault:
    """A response to a swap with other values; None leaves a field out."""

    def change(good: dict[str, Any]) -> dict[str, Any]:
        changed = good | changes
        return {name: value for name, value in changed.items() if value is not None}

    return Fault(change=change)


class Mint:
    """An app on the workspace acme with the repository widgets, and what people would read of its mints."""

    def __init__(self, bitbucket: Emulator) -> None:
        self.bitbucket = bitbucket
        self.app: App = bitbucket.install("acme")
        self.widgets = bitbucket.host_repository("acme/widgets")
        #: The secret that the helper has.
        self.secret = self.app.shared_secret
        #: The lines for standard error.
        self.lines: list[str] = []

    @property
    def text(self) -> str:
        """All lines for standard error."""
        return "\n".join(self.lines)

    def token(self, *, scope: str = "repository", seconds: float = 60, **urls: str) -> AccessToken:
        """Make the look-up and the swap; ``urls`` are other base URLs. Raises CredentialError."""
        base_url = urls.get("base_url", self.bitbucket.base_url)
        both = connections.Connections(Budget(seconds), HttpSettings())
        base, api = both.take(base_url), both.take(urls.get("base_api_url", self.bitbucket.base_api_url))
        bitbucket = Bitbucket(base, api, SecretSigner(self.app.key, self.app.client_key, lambda: self.secret))
        repository = Repository(urlsplit(base_url).netloc, "acme", "widgets")
        try:
            return bitbucket.swap(scope, bitbucket.look_up(repository, self.app.workspace_uuid))
        finally:
            base.close()
            api.close()

    def error(self, **how: object) -> CredentialError:
        """Return the error of a mint that fails, after it was printed."""
        with pytest.raises(CredentialError) as raised:
            self.token(**how)  # type: ignore[arg-type]  # the same arguments
        output.error(raised.value.what, raised.value.hint)
        return raised.value

    def statuses(self) -> list[int]:
        """The statuses of all responses to the helper."""
        return [seen.status for seen in self.bitbucket.helper_requests()]


@pytest.fixture
def mint(bitbucket: Emulator, machine: Machine, monkeypatch: pytest.MonkeyPatch) -> Mint:
    """Mints with Bitbucket on loopback. The pauses between attempts are short, times in ``Retry-After`` are not."""
    for name, value in machine.env(GIT_SSL_CAINFO=str(bitbucket.ca_file)).items():
        monkeypatch.setenv(name, value)
    found = Mint(bitbucket)
    monkeypatch.setattr(output, "_sink", found.lines.append)
    monkeypatch.setattr(output, "_secrets", {})
    monkeypatch.setattr(output, "_warned", {})
    monkeypatch.setattr(connections, "_FIRST_WAIT", 0.01)
    return found
