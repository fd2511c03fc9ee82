"""Answers of the token endpoint and the REST API, each rule with its source."""

from __future__ import annotations

import base64
import hashlib
import hmac
from typing import Any
from urllib.parse import unquote, unquote_plus

from tests.emulator.jwt import BadJwtError, decoded, decoded_json, query_string_hash
from tests.emulator.model import (
    CONSUMER_GRANT_TYPE,
    GRANT_TYPE,
    IMPLIES,
    NEW_NAMES,
    NOT_SEEN,
    App,
    Consumer,
    End,
    HostedRepository,
    IssuedToken,
    RefusalError,
    Rules,
    Seen,
    gone,
    oauth_error,
    old_names,
    rest_error,
    scheme_of,
    token_of,
    with_implied,
)

_BAD_CREDENTIALS = "Token is invalid, expired, or not supported for this endpoint."


class Answers:
    """The rules; `Emulator` has the state."""

    apps: dict[str, App]
    consumers: dict[str, Consumer]
    repositories: list[HostedRepository]
    tokens: dict[str, IssuedToken]
    rules: Rules
    base_api_url: str
    #: Until when the token endpoint refuses everything, by `Rules.refusal_lasts`.
    refuses_until = 0.0

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
            raise rest_error(401, f"{_BAD_CREDENTIALS} ({bad})") from bad
        seen.claims = claims
        if check_qsh and claims.get("qsh") != query_string_hash(seen.method, seen.path, seen.query):
            raise rest_error(401, f"{_BAD_CREDENTIALS} (qsh)")
        return app

    def connect_end(self) -> End | None:
        """Return the end of Connect that is in force now, if any."""
        end = self.rules.connect_end
        return end if end and (end.until is None or self.now() < end.until) else None

    def check_connect(self, *, swap: bool) -> None:
        """Refuse a Connect app's requests after the end of Connect. Raises RefusalError."""
        end = self.connect_end()
        if end is None or not (swap or end.look_ups):
            return
        if end.how == "gone":
            raise gone("CHANGE-9999")
        if end.how == "unauthorized":
            raise rest_error(401, _BAD_CREDENTIALS)
        if swap and end.how == "unsupported":
            raise oauth_error(400, "invalid_grant", "Unsupported grant type")
        raise rest_error(403, "Connect apps are no longer supported.")

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
        """Return the record of a valid access token."""
        issued = self.tokens.get(token)
        if issued is None or issued.revoked or issued.expires <= self.now():
            return None
        end = self.connect_end()
        return None if end and end.tokens and not issued.consumer else issued

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

    def grant(self, seen: Seen) -> dict[str, Any]:
        """The token endpoint. Raises RefusalError."""
        if seen.query:
            raise oauth_error(400, "invalid_request", "parameters belong in the form")
        content_type = seen.headers.get("Content-Type", "")
        if content_type != "application/x-www-form-urlencoded":
            raise oauth_error(400, "invalid_grant", "Unsupported grant type: None")
        if self.now() < self.refuses_until:
            raise oauth_error(400, "invalid_request", "Try again later.")
        try:
            if seen.form.get("grant_type") == CONSUMER_GRANT_TYPE:
                return self._client_credentials(seen)
            return self._swap(seen)
        except RefusalError:
            self.refuses_until = self.now() + self.rules.refusal_lasts
            raise

    def _swap(self, seen: Seen) -> dict[str, Any]:
        """Swap a JWT for a token ("Exchange a Connect JWT for an OAuth access token"). Raises RefusalError."""
        self.check_connect(swap=True)
        app = self.check_jwt(seen, check_qsh=self.rules.swap_checks_qsh)
        if seen.form.get("grant_type") != GRANT_TYPE:
            raise oauth_error(400, "invalid_grant", f"Unsupported grant type: {seen.form.get('grant_type')}")
        if set(seen.form) - {"grant_type", "scope", "bitbucket_repository"}:
            raise oauth_error(400, "invalid_request", "unknown field")
        asked = set(seen.form["scope"].split()) if "scope" in seen.form else app.scopes
        if self.rules.takes_new_scope_names:
            asked = old_names(asked)
        if not asked or not asked <= (
            with_implied(app.scopes) if self.rules.implied_scope_may_be_asked else app.scopes
        ):
            raise oauth_error(400, "invalid_scope", "The app does not have this scope.")
        limit = seen.form.get("bitbucket_repository")
        if limit is not None and not any(
            one.uuid == limit and one.workspace == app.workspace for one in self.repositories
        ):
            raise oauth_error(400, "invalid_request", "bitbucket_repository")
        return self._issue(app.workspace, asked, limit, subject=app.client_key)

    def _client_credentials(self, seen: Seen) -> dict[str, Any]:
        """The client credentials grant (RFC 6749, section 4.4; "Use OAuth on Bitbucket Cloud"). Raises RefusalError.

        Texts of refusals: SonarQube's tests; jenkinsci/bitbucket-build-status-notifier-plugin #47.
        """
        pair = self._basic_pair(seen)
        if pair is None:
            status = self.rules.wrong_consumer_status
            problem = "Requests must be authenticated using OAuth client credentials"
            raise oauth_error(status, "unauthorized_client", problem)
        consumer = self.consumers.get(pair[0])
        if consumer is None or consumer.deleted or not hmac.compare_digest(consumer.secret.encode(), pair[1].encode()):
            status = self.rules.wrong_consumer_status
            raise oauth_error(status, "unauthorized_client", "Invalid OAuth client credentials")
        if not consumer.private:
            problem = (
                'Cannot use client_credentials with a consumer marked as "public". Calls for auto generated consumers '
                "should use urn:bitbucket:oauth2:jwt instead."
            )
            raise oauth_error(400, "invalid_grant", problem)
        # Nobody knows whether `scope` may narrow the token. No client sends another field.
        if set(seen.form) != {"grant_type"}:
            raise oauth_error(400, "invalid_request", "unknown field")
        return self._issue(consumer.workspace, consumer.scopes, None, subject=consumer.key, consumer=consumer.key)

    def _basic_pair(self, seen: Seen) -> tuple[str, str] | None:
        """Key and secret of HTTP Basic: as they are (RFC 7617), or form-encoded (RFC 6749, section 2.3.1)."""
        encoded = scheme_of(seen, "Basic")
        try:
            key, colon, secret = base64.b64decode(encoded or "", validate=True).decode().partition(":")
        except ValueError:
            return None
        if not colon:
            return None
        return (unquote_plus(key), unquote_plus(secret)) if self.rules.consumer_form_encoded else (key, secret)

    def _issue(
        self, workspace: str, scopes: set[str], limit: str | None, *, subject: str, consumer: str = ""
    ) -> dict[str, Any]:
        expires = self.now() + self.rules.lifetime
        claims = {"sub": subject, "iat": int(self.now()), "exp": int(expires)}
        token = token_of(claims, short=self.rules.short_tokens)
        self.tokens[token] = IssuedToken(workspace, set(scopes), limit, expires, consumer=consumer)
        answer = {"access_token": token, "expires_in": self.rules.lifetime, "token_type": "bearer"}
        if self.rules.echoes_scope:
            named = sorted(_least(scopes))
            if self.rules.new_scope_names:
                named = [NEW_NAMES.get(name, name) for name in named]
            answer["scope"] = " ".join(named)
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
            # "How to fetch the scope of a token".
            seen.answer_headers["x-oauth-scopes"] = ", ".join(sorted(issued.scopes))
            allowed, limit, scopes = issued.workspace, issued.repository, issued.scopes
        else:
            self.check_connect(swap=False)
            if not self.rules.rest_takes_jwt:
                raise rest_error(401, _BAD_CREDENTIALS)
            app = self.check_jwt(seen, check_qsh=self.rules.rest_checks_qsh)
            allowed, scopes = app.workspace, app.scopes
        if "repository" not in with_implied(scopes):
            detail = {"required": ["repository"], "granted": sorted(scopes)}
            raise rest_error(403, "Your credentials lack one or more required privilege scopes.", detail)
        if self.rules.refuses and not self.rules.refuses_git_alone:
            raise rest_error(403, self.rules.refuses)
        repository = self.find(workspace, slug)
        if repository is None:
            renamed = self.find_renamed(workspace, slug)
            if renamed is not None and self.rules.rename_redirects:
                location = f"{self.base_api_url}/2.0/repositories/{renamed.full_name}"
                raise RefusalError(301, {"type": "error"}, {"Location": location})
            raise rest_error(404, NOT_SEEN)
        if repository.workspace != allowed or (limit is not None and limit != repository.uuid):
            # The answer is the same for a repository that may not be seen (the tests of eight programs).
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
        self.check_connect(swap=False)
        app = self.check_jwt(seen, check_qsh=self.rules.rest_checks_qsh)
        name = unquote(names[0]).lower()
        if len(names) != 1 or name not in (app.workspace, app.workspace_uuid):
            raise rest_error(404, f"No workspace with identifier '{name}'.")
        whole = {"type": "workspace", "uuid": app.workspace_uuid, "slug": app.workspace, "is_private": True}
        wanted = dict(seen.query).get("fields")
        return _partial(whole, wanted.split(",")) if wanted else whole


def _least(scopes: set[str]) -> set[str]:
    """Return ``scopes`` without the scopes that others of them include."""
    return {one for one in scopes if not any(one in IMPLIES.get(other, ()) for other in scopes)}


def _partial(whole: dict[str, Any], fields: list[str]) -> dict[str, Any]:
    """Return only the requested fields; ``a.b`` is the field b of a."""
    found: dict[str, Any] = {}
    for name in fields:
        outer, _, inner = name.partition(".")
        if outer in whole and not inner:
            found[outer] = whole[outer]
        elif outer in whole and inner in whole[outer]:
            found.setdefault(outer, {})[inner] = whole[outer][inner]
    return found
