"""The identity of a client of the https broker: its verified ID token, and the rules that match."""

import threading
import time
from typing import NamedTuple, Protocol

from git_credential_bbjwt.core.patterns import Pattern
from git_credential_bbjwt.serving import id_token
from git_credential_bbjwt.serving.claims import difference, named_claims
from git_credential_bbjwt.serving.id_token import IdToken, NotAcceptedError
from git_credential_bbjwt.serving.issuer_keys import Key, check_signature
from git_credential_bbjwt.serving.policy import Policy, Rule

# Identities whose requests are counted, before those of an earlier minute are forgotten.
_MOST_COUNTED = 10_000


class Keys(Protocol):
    """The keys of one issuer."""

    def for_token(self, token: IdToken) -> list[Key]:
        """Return the keys. Raises KeysNotAvailableError."""

    def begin(self) -> threading.Event | None:
        """Start to fetch; the event, if there is one, says when that is over."""


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


def checked(text: str, policy: Policy, keys: dict[str, Keys]) -> IdToken:
    """Return the ID token ``text``, verified: the checks in the order of the operators' page.

    Raises NotAcceptedError with the first that fails, KeysNotAvailableError.
    """
    token = id_token.parse_token(text)
    issuer = token.issuer
    if not isinstance(issuer, str) or issuer not in keys:
        raise NotAcceptedError("the ID token's issuer is not trusted here")
    id_token.check_times(token.claims)
    id_token.check_audience(token.claims, policy.audiences_of(issuer))
    check_signature(token, keys[issuer].for_token(token))
    id_token.check_subject(token)
    return token


def matching_rules(token: IdToken, policy: Policy) -> tuple[Rule, ...]:
    """Return the rules that match a verified token."""
    audiences = id_token.audiences_of(token.claims)
    return tuple(
        rule
        for rule in policy.rules
        if rule.issuer == token.issuer
        and any(one in rule.audiences for one in audiences)
        and difference(rule.claims, token.claims) is None
    )


class RequestLimit:
    """Counts the requests of each identity in this worker, minute by minute."""

    def __init__(self) -> None:
        self._counted: dict[int, tuple[int, int]] = {}

    def seconds_to_wait(self, token: IdToken, per_minute: int) -> int:
        """Count a request; return 0, or the seconds to wait if it is one too many."""
        now = time.monotonic()
        minute = int(now // 60)
        key = hash((token.issuer, token.subject))  # They may be long, and somebody else chose them.
        counted_in, count = self._counted.get(key, (minute, 0))
        count = count + 1 if counted_in == minute else 1
        if len(self._counted) >= _MOST_COUNTED and key not in self._counted:
            self._counted = {one: value for one, value in list(self._counted.items()) if value[0] == minute}
        self._counted[key] = (minute, count)
        return int((minute + 1) * 60 - now) + 1 if count > per_minute else 0
