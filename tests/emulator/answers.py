"""What the token endpoint and the REST API answer, each rule with its source."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from typing import Any
from urllib.parse import unquote

from tests.emulator.jwt import BadJwtError, decoded, decoded_json, query_string_hash
from tests.emulator.model import (
    GRANT_TYPE,
    IMPLIES,
    NOT_SEEN,
    App,
    HostedRepository,
    IssuedToken,
    RefusalError,
    Rules,
    Seen,
    gone,
    oauth_error,
    rest_error,
    scheme_of,
    with_implied,
)


class Answers:
    """The rules; `Emulator` has what they are about."""

    apps: dict[str, App]
    repositories: list[HostedRepository]
    tokens: dict[str, IssuedToken]
    rules: Rules
    base_api_url: str

    def now(self) -> float:
        """Unix time by this server's clock."""
        raise NotImplementedError

    def check_jwt(self, seen: Seen, *, check_qsh: bool) -> App:
        """Return the app that an ``Authorization: JWT`` header proves. Raises RefusalError.

        Source of all rules: "Understanding JWT for apps"; scheme and its case: the swap page.
        """
        jwt = scheme_of(seen, "JWT")
        if jwt is None:
            raise RefusalError(401, b"Login failed due to incorrect login credentials or method.")
        seen.jwt = jwt
        try:
            app, claims = self._verified(jwt)
        except BadJwtError as bad:
            seen.reason = str(bad)
            raise rest_error(401, f"Token is invalid, expired, or not supported for this endpoint. ({bad})") from bad
        seen.claims = claims
        if check_qsh and claims.get("qsh") != query_string_hash(seen.method, seen.path, seen.query):
            seen.reason = "qsh is of another request"
            raise rest_error(401, "Token is invalid, expired, or not supported for this endpoint. (qsh)")
        return app

    def _verified(self, jwt: str) -> tuple[App, dict[str, Any]]:
        parts = jwt.split(".")
        if len(parts) != 3:
            raise BadJwtError("not three segments")
        header, claims = (decoded_json(part) for part in parts[:2])
        if header != {"alg": "HS256", "typ": "JWT"}:
            raise BadJwtError("header is not HS256 JWT")
        app = self.apps.get(str(claims.get("sub")))
        if app is None or app.uninstalled:
            raise BadJwtError("sub is no client key")
        expected = hmac.new(app.shared_secret.encode(), f"{parts[0]}.{parts[1]}".encode(), hashlib.sha256).digest()
        if not hmac.compare_digest(expected, decoded(parts[2])):
            raise BadJwtError("signature")
        if claims.get("iss") != app.key:
            raise BadJwtError("iss is not the app key")
        issued, expires = claims.get("iat"), claims.get("exp")
        if type(issued) is not int or type(expires) is not int:
            raise BadJwtError("iat or exp is no whole number")
        if issued > self.now():
            raise BadJwtError("iat is in the future")
        if expires <= self.now():
            raise BadJwtError("exp has passed")
        return app, claims

    def check_token(self, token: str) -> IssuedToken | None:
        """Return what is known of an access token that still counts."""
        issued = self.tokens.get(token)
        return issued if issued and not issued.revoked and issued.expires > self.now() else None

    def find(self, workspace: str, slug: str) -> HostedRepository | None:
        """Find a repository; each part may be a name in any case or a UUID in braces ("Repositories")."""
        for one in self.repositories:
            if workspace.lower() in (one.workspace, one.workspace_uuid) and slug.lower() in (one.slug, one.uuid):
                return one
        return None

    def find_renamed(self, workspace: str, slug: str) -> HostedRepository | None:
        """Find a repository by a slug it used to have."""
        for one in self.repositories:
            if workspace.lower() == one.workspace and slug.lower() in one.old_slugs:
                return one
        return None

    def swap(self, seen: Seen) -> dict[str, Any]:
        """The token endpoint ("Exchange a Connect JWT for an OAuth access token"). Raises RefusalError."""
        if seen.query:
            raise oauth_error(400, "invalid_request", "parameters belong in the form")
        content_type = seen.headers.get("Content-Type", "")
        if content_type != "application/x-www-form-urlencoded":
            raise oauth_error(400, "invalid_grant", "Unsupported grant type: None")
        app = self.check_jwt(seen, check_qsh=self.rules.swap_checks_qsh)
        if seen.form.get("grant_type") != GRANT_TYPE:
            raise oauth_error(400, "invalid_grant", f"Unsupported grant type: {seen.form.get('grant_type')}")
        if set(seen.form) - {"grant_type", "scope", "bitbucket_repository"}:
            raise oauth_error(400, "invalid_request", "unknown field")
        asked = set(seen.form["scope"].split()) if "scope" in seen.form else app.scopes
        if not asked or not asked <= (
            with_implied(app.scopes) if self.rules.implied_scope_may_be_asked else app.scopes
        ):
            raise oauth_error(400, "invalid_scope", "The app does not have this scope.")
        limit = seen.form.get("bitbucket_repository")
        if limit is not None and not any(
            one.uuid == limit and one.workspace == app.workspace for one in self.repositories
        ):
            raise oauth_error(400, "invalid_request", "bitbucket_repository")
        token = secrets.token_urlsafe(60) + "="
        self.tokens[token] = IssuedToken(app.workspace, asked, limit, self.now() + self.rules.lifetime)
        answer = {"access_token": token, "expires_in": self.rules.lifetime, "token_type": "bearer"}
        if self.rules.echoes_scope:
            answer["scopes" if self.rules.scopes_plural else "scope"] = " ".join(sorted(_least(asked)))
        return answer

    def rest(self, seen: Seen) -> dict[str, Any]:
        """One repository or one workspace ("Repositories", "Workspaces" of the REST API). Raises RefusalError."""
        parts = seen.path.split("/")
        if parts[1:3] == ["2.0", "workspaces"]:
            return self._workspace(seen, parts[3:])
        if seen.method != "GET" or len(parts) != 5 or parts[1:3] != ["2.0", "repositories"]:
            raise rest_error(404, "Resource not found")
        workspace, slug = unquote(parts[3]), unquote(parts[4])
        limit: str | None = None
        bearer = scheme_of(seen, "Bearer")
        if bearer is not None:
            issued = self.check_token(bearer)
            if issued is None:
                raise rest_error(401, "Access token expired. Use your refresh token to obtain a new access token.")
            if "repository" not in with_implied(issued.scopes):
                detail = {"required": ["repository"], "granted": sorted(issued.scopes)}
                raise rest_error(403, "Your credentials lack one or more required privilege scopes.", detail)
            allowed, limit = issued.workspace, issued.repository
        else:
            if not self.rules.rest_takes_jwt:
                raise rest_error(401, "Token is invalid, expired, or not supported for this endpoint.")
            app = self.check_jwt(seen, check_qsh=self.rules.rest_checks_qsh)
            if "repository" not in with_implied(app.scopes):
                detail = {"required": ["repository"], "granted": sorted(app.scopes)}
                raise rest_error(403, "Your credentials lack one or more required privilege scopes.", detail)
            allowed = app.workspace
        repository = self.find(workspace, slug)
        if repository is None:
            renamed = self.find_renamed(workspace, slug)
            if renamed is not None and self.rules.rename_redirects:
                location = f"{self.base_api_url}/2.0/repositories/{renamed.full_name}"
                raise RefusalError(301, {"type": "error"}, {"Location": location})
            raise rest_error(404, NOT_SEEN)
        if repository.workspace != allowed or (limit is not None and limit != repository.uuid):
            # The same for what may not be seen: seen in the tests of eight programs.
            raise rest_error(404, NOT_SEEN)
        whole: dict[str, Any] = {
            "type": "repository",
            "uuid": repository.uuid,
            "full_name": repository.full_name,
            "slug": repository.slug,
            "is_private": True,
            "workspace": {"type": "workspace", "slug": repository.workspace, "uuid": repository.workspace_uuid},
        }
        wanted = dict(seen.query).get("fields")
        # "REST API introduction", partial responses.
        return _partial(whole, wanted.split(",")) if wanted else whole

    def _workspace(self, seen: Seen, names: list[str]) -> dict[str, Any]:
        """``GET /2.0/workspaces/{slug or UUID}``; the list is gone since 14 April 2026 (CHANGE-2770)."""
        if not names:
            raise gone("CHANGE-2770")
        app = self.check_jwt(seen, check_qsh=self.rules.rest_checks_qsh)
        name = unquote(names[0]).lower()
        if len(names) != 1 or name not in (app.workspace, app.workspace_uuid):
            raise rest_error(404, f"No workspace with identifier '{name}'.")
        whole = {"type": "workspace", "uuid": app.workspace_uuid, "slug": app.workspace, "is_private": True}
        wanted = dict(seen.query).get("fields")
        return _partial(whole, wanted.split(",")) if wanted else whole


def _least(scopes: set[str]) -> set[str]:
    """The smallest set that stands for ``scopes``: what another of them brings along is left out."""
    return {one for one in scopes if not any(one in IMPLIES.get(other, ()) for other in scopes)}


def _partial(whole: dict[str, Any], fields: list[str]) -> dict[str, Any]:
    """Just the fields asked for; ``a.b`` is the field b of a."""
    found: dict[str, Any] = {}
    for name in fields:
        outer, _, inner = name.partition(".")
        if outer in whole and not inner:
            found[outer] = whole[outer]
        elif outer in whole and inner in whole[outer]:
            found.setdefault(outer, {})[inner] = whole[outer][inner]
    return found
