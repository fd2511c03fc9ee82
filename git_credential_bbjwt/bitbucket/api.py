"""The two requests of a mint: look-up and swap.

Sources: "Exchange a Connect JWT for an OAuth access token" and "OAuth 2.0" of Bitbucket Cloud (the swap),
"Repositories" and "Workspaces" of its REST API (the look-up).
"""

import threading
import time
from base64 import b64encode
from collections.abc import Callable
from urllib.parse import quote, urlencode

from git_credential_bbjwt.bitbucket.announcements import Announcement, announced
from git_credential_bbjwt.bitbucket.assertion import TOKEN_PATH
from git_credential_bbjwt.bitbucket.refusal import Request, refuse
from git_credential_bbjwt.bitbucket.responses import (
    AccessToken,
    check_workspace,
    checked_full_name,
    checked_slug,
    checked_token,
    checked_uuid,
)
from git_credential_bbjwt.bitbucket.signing import Query, Signed, Signer
from git_credential_bbjwt.core.failures import CredentialError, RefusedError
from git_credential_bbjwt.core.output import hide, trace
from git_credential_bbjwt.core.repository import Repository
from git_credential_bbjwt.core.scopes import normal_scope
from git_credential_bbjwt.network.connections import Origin
from git_credential_bbjwt.network.response import Response

GRANT_TYPE = "urn:bitbucket:oauth2:jwt"


class Bitbucket:
    """Bitbucket as one installation sees it: ``base`` has git and the token endpoint, ``api`` the REST API."""

    def __init__(self, base: Origin, api: Origin | None, signer: Signer) -> None:
        self._signer = signer
        self._api = api
        self._base = base
        #: The last announcement in a good response.
        self.announcement: Announcement | None = None

    def mint(
        self, repository: Repository, scope: str, workspace_uuid: str, remembered: str | None = None
    ) -> tuple[str, AccessToken]:
        """Return the repository's UUID, in braces, and a token for it alone.

        ``workspace_uuid`` is that of the installation's workspace, or empty if it is not known. With a ``remembered``
        UUID both requests are sent at once, and the token is used only if the look-up confirms the UUID.
        Raises the errors of `Origin.request`, RefusedError, BadAnswerError, and AnothersWorkspaceError.
        """
        if self._api is None:
            assert repository.uuid is not None
            return repository.uuid, self.swap(scope, repository.uuid)
        # The REST API may refuse a JWT that was signed elsewhere, and then the swap has to come first.
        guess = (repository.uuid or remembered) if self._signer.signs_each else None
        ahead = _Ahead(lambda: self.swap(scope, guess)) if guess is not None else None
        response = self._look_up(repository)
        uuid = checked_uuid(response, repository)
        check_workspace(response, workspace_uuid)
        if ahead is not None and guess == uuid:
            return uuid, ahead.result()
        if ahead is not None:
            trace(f"{repository.full_name}: it is another repository than it was; its old token is dropped")
            ahead.wait()  # There is one connection.
        return uuid, self.swap(scope, uuid)

    def swap(self, scope: str, uuid: str | None) -> AccessToken:
        """Swap a JWT for a token of ``scope``, limited to the repository with ``uuid`` unless that is None.

        Raises as `mint` does.
        """
        form = {"grant_type": GRANT_TYPE, "scope": normal_scope(scope)}
        if uuid is not None:
            form["bitbucket_repository"] = uuid
        requested_at = int(time.time())
        response = self._send(self._base, Request.SWAP, "POST", TOKEN_PATH, (), body=urlencode(form).encode())
        token = checked_token(response, scope, requested_at)
        hide(token.token)
        return token

    def full_name(self, repository: Repository) -> str:
        """Return ``workspace/slug`` of the repository that is named by UUIDs. Raises as `mint` does."""
        return checked_full_name(self._look_up(repository), repository)

    def workspace_slug(self, workspace_uuid: str) -> str:
        """Return the slug of the workspace with this UUID. Raises as `mint` does."""
        assert self._api is not None
        path = f"/2.0/workspaces/{quote(workspace_uuid, safe='')}"
        response = self._send(self._api, Request.LOOK_UP, "GET", path, (("fields", "slug,uuid"),))
        return checked_slug(response, workspace_uuid)

    def _look_up(self, repository: Repository) -> Response:
        assert self._api is not None
        parts = [quote(part, safe="") for part in (repository.workspace, repository.name)]
        path = "/2.0/repositories/" + "/".join(parts)
        query = (("fields", "uuid,full_name,workspace.uuid"),)
        try:
            return self._send(self._api, Request.LOOK_UP, "GET", path, query)
        except RefusedError as refused:
            if refused.status not in ((401,) if self._signer.signs_each else (400, 401, 403)):
                raise
            # The `qsh` of a JWT signed elsewhere is that of the swap, and the REST API checks it. That the REST API
            # accepts a JWT at all rests on few programs. A token may work instead.
            trace("the REST API refuses the JWT: asking with a transient token of scope repository")
            try:
                transient = self.swap("repository", None)
            except RefusedError as no_better:
                raise (refused if self._signer.signs_each else no_better) from no_better
            return self._send(self._api, Request.LOOK_UP, "GET", path, query, bearer=transient.token)

    def _send(
        self,
        origin: Origin,
        request: Request,
        method: str,
        path: str,
        query: Query,
        *,
        body: bytes | None = None,
        bearer: str = "",
    ) -> Response:
        """Send a request; sign once more by the server's clock if this machine's is off. Raises RefusedError."""
        target = path + (f"?{urlencode(query, quote_via=quote)}" if query else "")
        signed = Signed("", 0.0)

        def headers() -> dict[str, str]:
            nonlocal signed
            if not bearer:
                signed = self._signer.jwt_for(method, path, query)
            authorization = f"Bearer {bearer}" if bearer else f"JWT {signed.jwt}"
            content = {"Content-Type": "application/x-www-form-urlencoded"} if body is not None else {}
            return {"Authorization": authorization, **content}

        response = origin.request(method, target, headers, body)
        if response.status in (400, 401, 403) and not bearer and self._signer.adopt(response.date, signed):
            response = origin.request(method, target, headers, body)
        if response.status != _OK:
            refuse(response, origin.host, request)
        self.announcement = announced(response.headers) or self.announcement
        return response


def check_token(origin: Origin, repository: Repository, username: str, token: str) -> None:
    """Make the first request of a git fetch with ``token``. Raises RefusedError if the server does not accept it."""
    pair = b64encode(f"{username}:{token}".encode()).decode()
    hide(pair)
    target = f"/{repository.full_name}.git/info/refs?service=git-upload-pack"
    response = origin.request("GET", quote(target, safe="/?=.-_~%"), lambda: {"Authorization": f"Basic {pair}"})
    if response.status != _OK:
        refuse(response, origin.host, Request.GIT)


class _Ahead:
    """A swap in a thread of its own."""

    def __init__(self, work: Callable[[], AccessToken]) -> None:
        self._work = work
        self._found: AccessToken | None = None
        self._trouble: CredentialError | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._found = self._work()
        except CredentialError as problem:  # Raised again by the thread that waits.
            self._trouble = problem

    def wait(self) -> None:
        self._thread.join()

    def result(self) -> AccessToken:
        self.wait()
        if self._trouble is not None:
            raise self._trouble
        assert self._found is not None
        return self._found


_OK = 200
