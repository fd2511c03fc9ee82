"""The identity of a client of the https broker: its verified ID token, and the rules that match.

Source: RFC 6750 (``Bearer``).
"""

from typing import NamedTuple

from git_credential_bbjwt.core.patterns import Pattern
from git_credential_bbjwt.serving import id_token
from git_credential_bbjwt.serving.answer import DeniedError
from git_credential_bbjwt.serving.claims import named_claims
from git_credential_bbjwt.serving.id_token import IdToken, NotAcceptedError
from git_credential_bbjwt.serving.issuer_keys import IssuerKeys, check_signature
from git_credential_bbjwt.serving.policy import Policy, Rule


class Identity(NamedTuple):
    """A verified identity, and the rules that match it."""

    token: IdToken
    rules: tuple[Rule, ...]

    @property
    def patterns(self) -> tuple[Pattern, ...]:
        """The patterns of all matching rules: the identity may request what any of them allows."""
        return tuple(pattern for rule in self.rules for pattern in rule.allow)

    def described(self) -> dict[str, object]:
        """Return the identity's fields in the audit."""
        claims: dict[str, object] = {}
        for rule in self.rules:
            claims |= named_claims(rule.claims, self.token.claims)
        jti = self.token.claims.get("jti")
        return {
            "issuer": self.token.issuer,
            "subject": self.token.subject,
            "claims": claims,
            "rules": [rule.name for rule in self.rules],
            **({"jti": jti} if isinstance(jti, (str, int)) else {}),
        }


def identify(authorization: str, policy: Policy, keys: dict[str, IssuerKeys]) -> Identity:
    """Return the identity that a request's ``Authorization`` proves. Raises DeniedError."""
    scheme, _, text = authorization.strip().partition(" ")
    if scheme.lower() != "bearer" or not text.strip():
        raise DeniedError("the request has no ID token", status=401, headers=(("WWW-Authenticate", "Bearer"),))
    token = verified(text.strip(), policy, keys)
    return Identity(token, tuple(rule for rule in policy.rules if rule.mismatch(token) is None))


def verified(text: str, policy: Policy, keys: dict[str, IssuerKeys]) -> IdToken:
    """Return the ID token ``text``, verified: the checks in the order of the operators' page.

    Raises NotAcceptedError with the first that fails, KeysNotAvailableError.
    """
    token = id_token.parse_token(text)
    issuer = token.issuer
    if not isinstance(issuer, str) or issuer not in keys:
        raise NotAcceptedError("the ID token's issuer is not trusted here")
    id_token.check_times(token.claims)
    id_token.check_audience(token, policy.audiences_of(issuer))
    check_signature(token, keys[issuer].for_token(token))
    id_token.check_subject(token)
    return token
