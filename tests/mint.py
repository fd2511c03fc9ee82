"""The requests of a mint in the tests' own process, at a tenth of the cost of a helper process."""

from __future__ import annotations

import json
import os
from typing import Any
from urllib.parse import urlsplit

import pytest

from git_credential_bbjwt.bitbucket.responses import AccessToken
from git_credential_bbjwt.core import output
from git_credential_bbjwt.core.failures import CredentialError
from git_credential_bbjwt.core.repository import Repository
from git_credential_bbjwt.installations.payload import parse_payload
from git_credential_bbjwt.network import connections
from git_credential_bbjwt.system.budget import Budget
from git_credential_bbjwt.tokens.cache import TokenCache
from git_credential_bbjwt.vendors.session import Session
from tests.conftest import Machine
from tests.emulator import App, Emulator, HostedRepository


class Mint:
    """An app of the workspace acme with the repository widgets, and the lines that its mints print."""

    def __init__(self, bitbucket: Emulator, app: App, widgets: HostedRepository) -> None:
        self.bitbucket = bitbucket
        self.app = app
        self.widgets = widgets
        #: The secret that the helper has.
        self.secret = app.shared_secret
        #: The lines for standard error.
        self.lines: list[str] = []

    @property
    def text(self) -> str:
        """Return all lines for standard error."""
        return "\n".join(self.lines)

    def token(self, *, scope: str = "repository", seconds: float = 60, base: str = "", api: str = "") -> AccessToken:
        """Make the look-up and the swap, at other base URLs if they are given. Raises CredentialError."""
        urls = {"baseUrl": base or self.bitbucket.base_url, "baseApiUrl": api or self.bitbucket.base_api_url}
        payload = self.bitbucket.payload(self.app, sharedSecret=self.secret, **urls)
        (installation,) = parse_payload(json.dumps(payload).encode(), "the payload")
        repository = Repository(urlsplit(urls["baseUrl"]).netloc, "acme", "widgets")
        session = Session(Budget(seconds), TokenCache(None, None, None), for_person=True)
        try:
            with session.bitbucket(installation, repository, needs_api=True) as bitbucket:
                return bitbucket.swap(scope, bitbucket.look_up(repository, self.app.workspace_uuid))
        finally:
            session.close()

    def error(self, **how: Any) -> CredentialError:
        """Return the error of a mint that fails, after it was printed."""
        with pytest.raises(CredentialError) as raised:
            self.token(**how)
        output.error(raised.value.what, raised.value.hint)
        return raised.value

    def statuses(self) -> list[int]:
        """Return the statuses of all responses to the helper."""
        return [seen.status for seen in self.bitbucket.helper_requests()]


def be_the_helper(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], lines: list[str]) -> None:
    """Give this process a helper's environment. Its messages go to ``lines``. The pauses between attempts are short."""
    for name in os.environ.keys() - environment.keys():
        if not name.startswith("PYTEST"):
            monkeypatch.delenv(name)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(output, "_sink", lambda mark, text: lines.append(mark + text))
    monkeypatch.setattr(output, "_secrets", {})
    monkeypatch.setattr(output, "_warned", {})
    monkeypatch.setattr(connections, "_FIRST_WAIT", 0.01)


@pytest.fixture
def mint(bitbucket: Emulator, machine: Machine, monkeypatch: pytest.MonkeyPatch) -> Mint:
    """Mints with Bitbucket on loopback."""
    found = Mint(bitbucket, bitbucket.install("acme"), bitbucket.host_repository("acme/widgets"))
    be_the_helper(monkeypatch, machine.env(GIT_SSL_CAINFO=str(bitbucket.ca_file)), found.lines)
    return found
