"""The meanings of Bitbucket's refusals, and the hints that follow from them.

Sources: RFC 6749, section 5.2 (errors of the token endpoint); recorded responses of the REST API and of git's endpoint;
"Error 403 when performing Git operations" and "API request limits" of Bitbucket Cloud's documentation.
"""

import time
from enum import Enum, auto
from typing import Any, NoReturn
from urllib.parse import urlsplit

from git_credential_bbjwt.bitbucket.announcements import is_shown
from git_credential_bbjwt.bitbucket.assertion import CLOCK_TOLERANCE
from git_credential_bbjwt.bitbucket.responses import json_object
from git_credential_bbjwt.core.failures import RefusedError
from git_credential_bbjwt.core.repository import is_name
from git_credential_bbjwt.core.server_text import safe_text
from git_credential_bbjwt.network.response import Response


class RequestKind(Enum):
    """The kinds of requests to Bitbucket."""

    LOOK_UP = auto()
    SWAP = auto()
    CLIENT_CREDENTIALS = auto()
    GIT = auto()


_CONNECT_MAY_HAVE_ENDED = (
    'Bitbucket may also have ended Connect, or be rehearsing its end, which can last hours: README, "When Connect ends"'
)

# Words by which Bitbucket names a cause, in lower case, and the hint for that cause.
_CAUSES = (
    (
        ("whitelist your ip", "allowlist", "allow list", "ip address"),
        "ask an administrator of the workspace to add this machine's public IP address to the workspace's allow-list "
        "(Workspace settings, Access controls)",
    ),
    (
        ("two-step", "two-factor"),
        "the workspace requires two-step verification: ask an administrator to change that (Workspace settings, "
        "Access controls)",
    ),
)

# Number of bytes of a response that are searched for words.
_SEARCHED = 4_000


def refuse(response: Response, host: str, request: RequestKind, remedy: str) -> NoReturn:
    """Raise the RefusedError for a response of ``host`` with another status than 200.

    ``remedy`` says how to correct what the request was sent with: a secret, a consumer's key and secret, or a token.
    """
    # The body of a response below 400 is not shown, because it may contain a token.
    code, words = server_words(response.body) if response.status >= 400 else ("", "")
    what, hint = _named_cause(response, host) or _meaning(response, host, request, code, remedy)
    raise RefusedError(
        f"{what}: {words}" if words else what,
        hint,
        status=response.status,
        is_about_repository=request is RequestKind.LOOK_UP and response.status in (403, 404),
        is_used_up=response.status == 429 and response.retry_after is None,
        is_of_swap=request is RequestKind.SWAP,
        is_unknown_grant=response.status == 400 and _says(response, "unsupported grant type"),
    )


def _meaning(response: Response, host: str, request: RequestKind, code: str, remedy: str) -> tuple[str, str]:
    """Return the error and the hint, without the server's own words."""
    status = response.status
    if 300 <= status < 400:
        return _redirect(response, host)
    if status == 410:
        return (
            f"{host} says that this function has ended, or is rehearsing its end (410)",
            "wait and try again, because a rehearsal lasts minutes to hours; if it has ended, use an OAuth consumer or "
            'a broker: README, "When Connect ends"',
        )
    if status == 429 or status >= 500:
        return _overload(response, host)
    if request is RequestKind.SWAP and code == "invalid_scope":
        return (
            "the app does not have the requested scope",
            "request a scope that the app's descriptor names, for example --scope repository:write; a scope that is "
            "only included in another one may not be available by itself",
        )
    if request is RequestKind.SWAP and status in (400, 401, 403):
        return (
            f"{host} refused to swap the JWT for a token ({status})",
            f"wait some minutes and try again; if this does not help, {remedy}. {_CONNECT_MAY_HAVE_ENDED}. "
            "Do not uninstall the app: it cannot be installed again",
        )
    if request is RequestKind.CLIENT_CREDENTIALS and status in (400, 401, 403):
        return _consumer(response, host, remedy)
    if request is RequestKind.GIT:
        return f"{host} does not accept the token ({status})", remedy
    if status == 401:
        return f"{host} does not accept the JWT (401)", _jwt_hint(response.date, remedy)
    if status == 403:
        return (
            "the app has no access to this repository (403)",
            "give the app's account access to the repository, and its descriptor the scope repository",
        )
    if status == 404 and request is RequestKind.LOOK_UP:
        return (
            f"{host} knows no such repository (404)",
            "check the URL: the repository or its workspace may have been renamed, moved or deleted, or the app has no "
            "access to it",
        )
    return f"{host} responded with {status}", "run: git-credential-bbjwt doctor URL"


def _redirect(response: Response, host: str) -> tuple[str, str]:
    """Return the error, with the redirect's host, and the hint, with a workspace's new name. Redirects are an error."""
    try:
        address = urlsplit((response.headers.get("Location") or "")[:_SEARCHED])
        place, segments = address.hostname or "", address.path.split("/")
    except ValueError:
        place, segments = "", []
    what = f"{host} responded with a redirect to {safe_text(place) or 'another place'}, which is never followed"
    hint = "update the remote's URL, because a renamed or moved repository redirects"
    if segments[1:3] == ["2.0", "repositories"] and len(segments) >= 5 and is_name(segments[3].lower()):
        hint += f"; the new URL names the workspace {safe_text(segments[3])}"
    return what, hint


def _overload(response: Response, host: str) -> tuple[str, str]:
    what = f"{host} responded with {response.status}"
    if response.status == 429:
        what += ": too many requests"
    if response.retry_after is not None:
        return f"{what}, and asks to wait {response.retry_after:.0f} s", "try again later"
    if response.status == 429:
        return (
            f"{what}; the hour's allowance is used up",
            "try again in some minutes, because the allowance is for any 60 minutes; clone URLs that name the "
            "repository by its UUID need one request less",
        )
    return what, "try again later"


def _consumer(response: Response, host: str, remedy: str) -> tuple[str, str]:
    if _says(response, 'marked as "public"', 'marked as \\"public\\"', "marked as public"):
        return (
            f"{host} gives the OAuth consumer no token, because it is not private ({response.status})",
            "edit the consumer and tick *This is a private consumer* (Workspace settings, OAuth consumers)",
        )
    return (
        f"{host} does not accept the OAuth consumer's key and secret ({response.status})",
        f"check both in Bitbucket (Workspace settings, OAuth consumers), then {remedy}",
    )


def _jwt_hint(server_time: float | None, hint: str) -> str:
    if server_time is None or abs(server_time - time.time()) > CLOCK_TOLERANCE:
        hint += "; check this machine's clock"
    return f"{hint}. {_CONNECT_MAY_HAVE_ENDED}"


def _named_cause(response: Response, host: str) -> tuple[str, str] | None:
    """Return the error and the hint if the refusal names a known cause; otherwise None."""
    if response.status not in (400, 401, 403):
        return None
    hint = next((hint for words, hint in _CAUSES if _says(response, *words)), None)
    return None if hint is None else (f"{host} refused the request ({response.status})", hint)


def _says(response: Response, *words: str) -> bool:
    text = response.body[:_SEARCHED].decode("utf-8", "replace").lower()
    return any(word in text for word in words)


def server_words(body: bytes) -> tuple[str, str]:
    """Return the error code and the message of an error response: RFC 6749's, the REST API's, or plain text.

    Both have passed the gate of `server_text`. The only links shown are Atlassian's own announcements.
    """
    found = json_object(body)
    if found is None:
        text = body[:_SEARCHED].decode("utf-8", "replace").strip()
        # HTML has no useful first line. JSON of another form might contain anything, even a token.
        if text[:1] in ("<", "[", "{", '"'):
            return "", ""
        return "", _shown(body.decode("utf-8", "replace"))
    error = found.get("error")
    if isinstance(error, dict):
        return "", "; ".join(filter(None, _rest_words(error)))
    description = found.get("error_description")
    code = safe_text(error) if isinstance(error, str) else ""
    return code, ": ".join(filter(None, (code, _shown(description))))


def _rest_words(error: dict[str, Any]) -> list[str]:
    detail, data = error.get("detail"), error.get("data")
    words = [_shown(error.get("message")), _shown(detail)]
    if isinstance(detail, dict):
        for name in ("required", "granted"):
            listed = detail.get(name)
            if isinstance(listed, list):
                words.append(f"{name}: {_shown(', '.join(map(str, listed[:10]))) or 'none'}")
    link = data.get("announcement_url") if isinstance(data, dict) else None
    if isinstance(link, str) and is_shown(link):
        words.append(link)
    return words


# A value with one of these names may be a secret, even if it is too short to look like a token.
_NAMES_OF_SECRETS = ("access_token", "refresh_token", "token=", "client_secret", "password=", "sharedsecret")


def _shown(text: object) -> str:
    """Return the part of a server's text that may be shown, with links replaced."""
    if not isinstance(text, str) or any(name in text[:_SEARCHED].lower() for name in _NAMES_OF_SECRETS):
        return ""
    return " ".join("[link]" if "://" in word else word for word in safe_text(text).split())
