"""The two requests of a mint: look-up and swap.

Sources: "Exchange a Connect JWT for an OAuth access token" and "OAuth 2.0" of Bitbucket Cloud (the swap),
"Repositories" and "Workspaces" of its REST API (the look-up).
"""

import time
from base64 import b64encode
from urllib.parse import quote, urlencode

from git_credential_bbjwt.bitbucket.announcements import Announcement, announced
from git_credential_bbjwt.bitbucket.assertion import TOKEN_PATH
from git_credential_bbjwt.bitbucket.refusal import RequestKind, refuse
from git_credential_bbjwt.bitbucket.responses import (
    AccessToken,
    check_workspace,
    checked_full_name,
    checked_slug,
    checked_token,
    checked_uuid,
)
from git_credential_bbjwt.bitbucket.signing import Query, Signed, Signer
from git_credential_bbjwt.core.failures import RefusedError
from git_credential_bbjwt.core.output import hide, trace
from git_credential_bbjwt.core.repository import Repository
from git_credential_bbjwt.core.scopes import normal_scope
from git_credential_bbjwt.network.connections import Origin
from git_credential_bbjwt.network.response import Response

GRANT_TYPE = "urn:bitbucket:oauth2:jwt"


class Bitbucket:
    """Bitbucket for one installation. ``base`` is the origin of git and the token endpoint, ``api`` of the REST API.

    ``remedy`` says how to correct the installation's secret.
    """

    def __init__(self, base: Origin, api: Origin | None, signer: Signer, remedy: str) -> None:
        self._signer = signer
        self._remedy = remedy
        self._api = api
        self._base = base
        #: The last announcement in a good response.
        self.announcement: Announcement | None = None

    @property
    def signs_each(self) -> bool:
        """Return whether each request has its own JWT. The REST API may refuse a JWT that was signed for the swap."""
        return self._signer.signs_each

    def look_up(self, repository: Repository, workspace_uuid: str, limit: float | None = None) -> str:
        """Return the repository's UUID, in braces.

        ``workspace_uuid`` is that of the installation's workspace, or empty if it is not known. ``limit`` is the
        time for a response in seconds, including repeated requests. Raises the errors of `Origin.request`,
        RefusedError, BadAnswerError, and AnothersWorkspaceError.
        """
        response = self._look_up(repository, limit)
        uuid = checked_uuid(response, repository)
        check_workspace(response, workspace_uuid)
        return uuid

    def swap(self, scope: str, uuid: str | None) -> AccessToken:
        """Swap a JWT for a token of ``scope``, limited to the repository with ``uuid`` unless that is None.

        Raises as `look_up` does.
        """
        form = {"grant_type": GRANT_TYPE, "scope": normal_scope(scope)}
        if uuid is not None:
            form["bitbucket_repository"] = uuid
        requested_at = int(time.time())
        response = self._send(self._base, RequestKind.SWAP, "POST", TOKEN_PATH, (), body=urlencode(form).encode())
        token = checked_token(response, scope, requested_at)
        hide(token.token)
        return token

    def full_name(self, repository: Repository) -> str:
        """Return ``workspace/slug`` of the repository that is named by UUIDs. Raises as `look_up` does."""
        return checked_full_name(self._look_up(repository), repository)

    def workspace_slug(self, workspace_uuid: str) -> str:
        """Return the slug of the workspace with this UUID. Raises as `look_up` does."""
        assert self._api is not None
        path = f"/2.0/workspaces/{quote(workspace_uuid, safe='')}"
        response = self._send(self._api, RequestKind.LOOK_UP, "GET", path, (("fields", "slug,uuid"),))
        return checked_slug(response, workspace_uuid)

    def _look_up(self, repository: Repository, limit: float | None = None) -> Response:
        assert self._api is not None
        parts = [quote(part, safe="") for part in (repository.workspace, repository.name)]
        path = "/2.0/repositories/" + "/".join(parts)
        query = (("fields", "uuid,full_name,workspace.uuid"),)
        try:
            return self._send(self._api, RequestKind.LOOK_UP, "GET", path, query, limit=limit)
        except RefusedError as refused:
            if refused.status not in ((401,) if self._signer.signs_each else (400, 401, 403)):
                raise
            # A JWT that was signed elsewhere has the `qsh` of the swap, and the REST API checks it. Only few programs
            # rely on the REST API to accept JWTs at all. A token may work instead.
            trace("the REST API refuses the JWT; asking again with a transient token of scope repository")
            try:
                transient = self.swap("repository", None)
            except RefusedError as no_better:
                raise (refused if self._signer.signs_each else no_better) from no_better
            return self._send(self._api, RequestKind.LOOK_UP, "GET", path, query, bearer=transient.token, limit=limit)

    def _send(
        self,
        origin: Origin,
        request: RequestKind,
        method: str,
        path: str,
        query: Query,
        *,
        body: bytes | None = None,
        bearer: str = "",
        limit: float | None = None,
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

        response = origin.request(method, target, headers, body, limit=limit)
        if response.status in (400, 401, 403) and not bearer and self._signer.adopt(response.date, signed):
            response = origin.request(method, target, headers, body, limit=limit)
        if response.status != _OK:
            refuse(response, origin.host, request, self._remedy)
        self.announcement = announced(response.headers) or self.announcement
        return response


def check_token(origin: Origin, repository: Repository, username: str, token: str) -> None:
    """Make the first request of a git fetch with ``token``. Raises RefusedError if the server does not accept it."""
    pair = b64encode(f"{username}:{token}".encode()).decode()
    hide(pair)
    target = f"/{repository.full_name}.git/info/refs?service=git-upload-pack"
    response = origin.request("GET", quote(target, safe="/?=.-_~%"), lambda: {"Authorization": f"Basic {pair}"})
    if response.status != _OK:
        refuse(response, origin.host, RequestKind.GIT, "run: git-credential-bbjwt forget URL")


_OK = 200
