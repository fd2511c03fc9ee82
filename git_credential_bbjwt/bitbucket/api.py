"""The two requests of a mint, and the checks on what comes back.

Sources: "Exchange a Connect JWT for an OAuth access token" and "OAuth 2.0" of Bitbucket Cloud (the grant),
"Repositories" of its REST API (the UUID), RFC 6749 sections 5.1 and 5.2 (answers).
"""

import json
import re
import threading
import time
from base64 import b64encode
from collections.abc import Callable
from typing import Any, NoReturn
from urllib.parse import quote, urlencode

from git_credential_bbjwt.bitbucket import assertion
from git_credential_bbjwt.bitbucket.announcements import Announcement, announced
from git_credential_bbjwt.bitbucket.assertion import TOKEN_PATH
from git_credential_bbjwt.bitbucket.signing import Query, Signed, Signer
from git_credential_bbjwt.core.failures import (
    NEWEST_PAYLOAD,
    AnothersWorkspaceError,
    BadAnswerError,
    CredentialError,
    RefusedError,
)
from git_credential_bbjwt.core.output import hide, redacted, trace
from git_credential_bbjwt.core.repository import Repository, is_name, is_uuid
from git_credential_bbjwt.network.connections import Origin
from git_credential_bbjwt.network.response import Response

GRANT_TYPE = "urn:bitbucket:oauth2:jwt"

# The shorter of the two lifetimes Bitbucket's documentation has named over the years, for an answer without
# `expires_in`; and the longest one that is believed. Seconds.
_UNSTATED_LIFETIME = 3600
_LONGEST_LIFETIME = 86_400

_TOKEN_LENGTH = 16_384

# What of the server's words is shown of each text. Characters.
_LONGEST_WORDS = 200

# Atlassian's newer spelling of the same scope (Forge's pages).
_RENAMED = {"read:repository:bitbucket": "repository"}

# "Scopes for the Bitbucket Cloud REST API": what a scope brings along without being asked for.
_IMPLIED = {
    "pullrequest": {"repository"},
    "pullrequest:write": {"pullrequest", "repository", "repository:write"},
}


class AccessToken:
    """A checked access token. ``minted`` and ``expires`` are Unix times by this machine's clock."""

    def __init__(self, token: str, minted: int, expires: int) -> None:
        self.token = token
        self.minted = minted
        self.expires = expires


class Bitbucket:
    """Bitbucket as one installation sees it: ``base`` has git and the token endpoint, ``api`` the REST API."""

    def __init__(self, base: Origin, api: Origin | None, signer: Signer) -> None:
        self._signer = signer
        self._api = api
        self._base = base
        #: What the last good answer that announced something announced.
        self.announcement: Announcement | None = None

    def mint(
        self, repository: Repository, scope: str, workspace_uuid: str, remembered: str | None = None
    ) -> tuple[str, AccessToken]:
        """Return the repository's UUID, in braces, and a token for it alone.

        ``workspace_uuid`` is that of the installation's workspace, or empty where it is not known. With a
        ``remembered`` UUID both requests are under way at once, and the token counts only if the look-up confirms it.
        Raises the errors of `Origin.request`, RefusedError, BadAnswerError, and AnothersWorkspaceError.
        """
        if self._api is None:
            assert repository.uuid is not None
            return repository.uuid, self._swap(scope, repository.uuid)
        # A JWT from elsewhere may be refused by the REST API, and then the swap has to come first.
        guess = (repository.uuid or remembered) if self._signer.signs_each else None
        ahead = _Ahead(lambda: self._swap(scope, guess)) if guess is not None else None
        response = self._look_up(repository)
        uuid = checked_uuid(response, repository)
        check_workspace(response, workspace_uuid)
        if ahead is not None and guess == uuid:
            return uuid, ahead.result()
        if ahead is not None:
            trace(f"{repository.full_name}: it is another repository than it was; the token for that one is dropped")
            ahead.wait()  # The connection is one.
        return uuid, self._swap(scope, uuid)

    def full_name(self, repository: Repository) -> str:
        """Return ``workspace/slug`` of the repository that is named by UUIDs. Raises as `mint` does."""
        return checked_full_name(self._look_up(repository), repository)

    def workspace_slug(self, workspace_uuid: str) -> str:
        """Return the slug of the workspace with this UUID ("The Bitbucket Cloud REST API", "Get a workspace").

        Raises as `mint` does.
        """
        assert self._api is not None
        path = f"/2.0/workspaces/{quote(workspace_uuid, safe='')}"
        return checked_slug(self._send(self._api, "GET", path, (("fields", "slug,uuid"),)), workspace_uuid)

    def _look_up(self, repository: Repository) -> Response:
        assert self._api is not None
        parts = [quote(part, safe="") for part in (repository.workspace, repository.name)]
        path = "/2.0/repositories/" + "/".join(parts)
        query = (("fields", "uuid,full_name,workspace.uuid"),)
        try:
            return self._send(self._api, "GET", path, query)
        except RefusedError as refused:
            if refused.status not in ((401,) if self._signer.signs_each else (400, 401, 403)):
                raise
            # The `qsh` of a JWT signed elsewhere is the swap's, which the REST API checks; and that it takes a JWT at
            # all rests on few programs. A token may ask instead.
            trace("the REST API refuses the JWT: asking with a transient token of scope repository")
            try:
                transient = self._swap("repository", None)
            except RefusedError as no_better:
                raise (refused if self._signer.signs_each else no_better) from no_better
            return self._send(self._api, "GET", path, query, bearer=transient.token)

    def _swap(self, scope: str, uuid: str | None) -> AccessToken:
        form = {"grant_type": GRANT_TYPE, "scope": scope}
        if uuid is not None:
            form["bitbucket_repository"] = uuid
        asked_at = int(time.time())
        response = self._send(self._base, "POST", TOKEN_PATH, (), body=urlencode(form).encode())
        token = checked_token(response, scope, asked_at)
        hide(token.token)
        return token

    def _send(
        self, origin: Origin, method: str, path: str, query: Query, *, body: bytes | None = None, bearer: str = ""
    ) -> Response:
        """Send a request; sign once more by the server's clock where ours is off. Raises RefusedError."""
        target = path + (f"?{urlencode(query, quote_via=quote)}" if query else "")
        signed = Signed("", 0.0)

        def headers() -> dict[str, str]:
            nonlocal signed
            if not bearer:
                signed = self._signer.jwt_for(method, path, query)
            authorization = f"Bearer {bearer}" if bearer else f"JWT {signed.jwt}"
            content = {"Content-Type": "application/x-www-form-urlencoded"} if body is not None else {}
            return {"Authorization": authorization, **content}

        try:
            response = origin.request(method, target, headers, body)
            if response.status in (400, 401, 403) and not bearer and self._signer.adopt(response.date, signed):
                response = origin.request(method, target, headers, body)
            if response.status != _OK:
                _refuse(response, origin.host, path)
            self.announcement = announced(response.headers) or self.announcement
        except RefusedError as refused:
            refused.is_of_swap = path == TOKEN_PATH
            raise
        return response


def opens(origin: Origin, repository: Repository, username: str, token: str) -> bool:
    """Whether the server lets ``token`` read the repository: one request, as git would begin."""
    pair = b64encode(f"{username}:{token}".encode()).decode()
    hide(pair)
    target = f"/{repository.full_name}.git/info/refs?service=git-upload-pack"
    response = origin.request("GET", quote(target, safe="/?=.-_~%"), lambda: {"Authorization": f"Basic {pair}"})
    return response.status == _OK


class _Ahead:
    """What is done by a thread of its own, meanwhile."""

    def __init__(self, work: Callable[[], AccessToken]) -> None:
        self._work = work
        self._found: AccessToken | None = None
        self._trouble: CredentialError | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._found = self._work()
        except CredentialError as problem:  # Carried over to the thread that waits for it.
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


def _refuse(response: Response, host: str, path: str) -> NoReturn:
    """Raise the RefusedError that says in words what the server's no means."""
    # A good status that is not 200 may carry a token, as may whatever is not an error's JSON or text.
    code, reason = server_words(response.body) if response.status >= 400 else ("", "")
    said = f": {reason}" if reason else ""
    swap, date = path == TOKEN_PATH, response.date
    hint = "git-credential-bbjwt doctor URL checks each step"
    if 300 <= response.status < 400:
        location = _shown_host(response.headers.get("Location"))
        what = f"{host} answered with a redirect to {location}, which is never followed"
        hint = "a renamed or moved repository redirects: update the remote's URL"
    elif response.status == 410:
        what = f"{host} says that this has ended, or is rehearsing its end (410){said}"
        hint = (
            "wait some minutes and try again, for a rehearsal passes; if it stays so, Bitbucket has ended Connect: "
            'README, "When Connect ends"'
        )
    elif swap and code == "invalid_scope":
        what = f"the app does not have the scope asked for{said}"
        hint = (
            "ask for a scope of the app's descriptor by its name, for example with --scope repository:write: what one "
            "scope brings along may not be asked for by itself"
        )
    elif swap and response.status in (400, 401, 403):
        what = f"{host} refused to swap the JWT for a token ({response.status}){said}"
        hint = (
            f"wait some minutes and try again; if it stays so, {NEWEST_PAYLOAD}; Atlassian is ending Connect apps, "
            "and an ended one is refused like this. Do not uninstall it: it cannot be installed again"
        )
    elif response.status == 401:
        what = f"{host} does not accept the JWT (401){said}"
        hint = NEWEST_PAYLOAD
        if date is None or abs(date - time.time()) > assertion.CLOCK_TOLERANCE:
            hint += "; check this machine's clock"
    elif response.status == 403:
        what = f"the app may not see this repository (403){said}"
        hint = "give the app's account access to the repository, and its descriptor the scope repository"
    elif response.status == 404 and not swap:
        what = f"{host} knows no such repository (404){said}"
        hint = "check the URL: the repository may have been renamed, moved or deleted, or be out of the app's reach"
    else:
        what = f"{host} answered {response.status}{said}"
    about_repository = not swap and response.status in (403, 404)
    raise RefusedError(what, hint, status=response.status, server_time=date, is_about_repository=about_repository)


def server_words(body: bytes) -> tuple[str, str]:
    """Return the error code and the message of an error answer: RFC 6749's, the REST API's, or plain text.

    Nothing of an answer that might hold a token is returned. Secrets are taken out before anything is cut: what is left
    of a cut one would not be recognised.
    """
    from git_credential_bbjwt.bitbucket.announcements import is_shown

    found = _json_object(body)
    if found is None:
        text = body.decode("utf-8", "replace").strip()
        # A page of HTML says nothing in one line; JSON of another shape, or a form, might hold anything.
        if text[:1] in ("<", "[", "{", '"') or "token=" in text or "access_token" in text:
            return "", ""
        return "", _shortened(text)
    error = found.get("error")
    if isinstance(error, dict):
        words: list[Any] = [error.get("message")]
        detail = error.get("detail")
        if isinstance(detail, str):
            words.append(detail)
        if isinstance(detail, dict):
            for name in ("required", "granted"):
                listed = detail.get(name)
                if isinstance(listed, list):
                    words.append(f"{name}: {', '.join(map(str, listed[:10])) or 'none'}")
        data = error.get("data")
        address = data.get("announcement_url") if isinstance(data, dict) else None
        if isinstance(address, str) and is_shown(address):
            words.append(address)
        return "", "; ".join(_shortened(word) for word in words if isinstance(word, str))
    description = found.get("error_description")
    code = error if isinstance(error, str) else ""
    return code, ": ".join(_shortened(word) for word in (code, description) if isinstance(word, str) and word)


# A word that is an address, wherever it stands in an answer.
_LINK = r"(?i)[a-z][a-z0-9+.-]*://[^\s;,\"'<>]*"


def _shortened(text: str) -> str:
    from git_credential_bbjwt.bitbucket.announcements import is_shown

    text = " ".join(redacted(text).split())
    text = re.sub(_LINK, lambda link: link[0] if is_shown(link[0]) else "[link]", text)
    return text[:_LONGEST_WORDS]


def _shown_host(location: str | None) -> str:
    """The host a redirect points to; its path and query might carry anything."""
    host = (location or "").partition("://")[2].partition("/")[0].rpartition("@")[2]
    return host[:100] or "another place"


def _json_object(body: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _unusable(what: str) -> CredentialError:
    return BadAnswerError(what, "try again; if it stays so, a proxy may be answering in Bitbucket's place")


def checked_uuid(response: Response, repository: Repository) -> str:
    """Return the UUID, in braces, of a REST answer that is about ``repository``. Raises BadAnswerError."""
    found = _json_object(response.body)
    if found is None:
        raise _unusable("the REST API's answer is not a JSON object")
    uuid, full_name = found.get("uuid"), found.get("full_name")
    if not isinstance(uuid, str) or not is_uuid(uuid.lower()):
        raise _unusable("the REST API's answer does not give the repository's UUID")
    if full_name is not None:
        workspace, _, name = str(full_name).lower().partition("/")
        same_workspace = repository.workspace.startswith("{") or repository.workspace == workspace
        if not same_workspace or repository.name not in (name, uuid.lower()):
            raise BadAnswerError(
                "the REST API answered for another repository than was asked for",
                "if the repository was renamed or moved, update the remote's URL",
            )
    return uuid.lower()


def check_workspace(response: Response, workspace_uuid: str) -> None:
    """Raise AnothersWorkspaceError where a REST answer names another workspace than that of ``workspace_uuid``."""
    workspace = (_json_object(response.body) or {}).get("workspace")
    found = workspace.get("uuid") if isinstance(workspace, dict) else None
    if workspace_uuid and isinstance(found, str) and found.lower() != workspace_uuid:
        raise AnothersWorkspaceError(
            "the repository is in another workspace than the one the app is installed on",
            f"its workspace's slug may have changed hands: {NEWEST_PAYLOAD}",
        )


def checked_full_name(response: Response, repository: Repository) -> str:
    """Return ``workspace/slug``, lower case, of an answer about a repository named by UUIDs. Raises BadAnswerError."""
    found = _json_object(response.body) or {}
    uuid, full_name = found.get("uuid"), found.get("full_name")
    if not isinstance(uuid, str) or not isinstance(full_name, str):
        raise _unusable("the REST API's answer is not about a repository")
    workspace, _, slug = full_name.lower().partition("/")
    if repository.name not in (uuid.lower(), slug):
        raise _unusable("the REST API's answer is about another repository")
    if not is_name(workspace) or not is_name(slug):
        raise _unusable("the REST API's answer does not give a workspace and a slug")
    return f"{workspace}/{slug}"


def checked_slug(response: Response, workspace_uuid: str) -> str:
    """Return the slug of a REST answer about the workspace of ``workspace_uuid``. Raises BadAnswerError."""
    found = _json_object(response.body) or {}
    uuid, slug = found.get("uuid"), found.get("slug")
    if not isinstance(uuid, str) or uuid.lower() != workspace_uuid:
        raise _unusable("the REST API's answer is about another workspace")
    if not isinstance(slug, str) or not is_name(slug.lower()):
        raise _unusable("the REST API's answer does not give the workspace's slug")
    return slug.lower()


def checked_token(response: Response, asked_scope: str, asked_at: int) -> AccessToken:
    """Return the token of a swap's answer, if it is one and no broader than asked. Raises BadAnswerError."""
    found = _json_object(response.body)
    if found is None:
        raise _unusable("the token endpoint's answer is not a JSON object")
    token, kind, lifetime = found.get("access_token"), found.get("token_type"), found.get("expires_in")
    if not isinstance(token, str) or not 0 < len(token) <= _TOKEN_LENGTH or not _is_visible_ascii(token):
        raise _unusable("the token endpoint's answer holds no usable access_token")
    if not isinstance(kind, str) or kind.lower() != "bearer":
        raise _unusable("the token endpoint's answer is of another token_type than bearer")
    if lifetime is None:
        lifetime = _UNSTATED_LIFETIME
    if type(lifetime) is not int or lifetime <= 0:
        raise _unusable("the token endpoint's answer has an expires_in that is not a number of seconds")
    allowed = _with_implied(asked_scope)
    for field in ("scopes", "scope"):
        granted = found.get(field)
        if granted is None:
            continue
        names = granted.split() if isinstance(granted, str) else granted
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise _unusable(f"the token endpoint's answer has a {field} that is neither a string nor a list of strings")
        broader = {_RENAMED.get(name, name) for name in names} - allowed
        if broader:
            raise BadAnswerError(
                f"the token endpoint granted more than the scope {asked_scope}: {' '.join(sorted(broader))[:200]}",
                "the token is not used; if the broader scope is wanted, ask for it with --scope",
            )
    return AccessToken(token, asked_at, asked_at + min(lifetime, _LONGEST_LIFETIME))


def _is_visible_ascii(text: str) -> bool:
    return all("\x21" <= character <= "\x7e" for character in text)


def _with_implied(scope: str) -> set[str]:
    allowed = set(scope.split())
    for one in list(allowed):
        # Of every scope the `:write` form brings the reading one along.
        allowed |= _IMPLIED.get(one, set()) | {one.removesuffix(":write")}
    return allowed
