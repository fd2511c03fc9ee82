"""The ID token of this job: its source and its claims. The token itself is never shown."""

import time
from collections.abc import Iterator

from git_credential_bbjwt.commands.checks.check import Check, checked
from git_credential_bbjwt.core.on_demand import BrokerSource
from git_credential_bbjwt.core.where import HTTPS, Where
from git_credential_bbjwt.installations.catalogue import Catalogue
from git_credential_bbjwt.system.budget import Budget
from git_credential_bbjwt.tokens.cache import TokenCache
from git_credential_bbjwt.vendors.session import Session


def id_tokens(catalogue: Catalogue, budget: Budget) -> Iterator[Check]:
    """Check that there is an ID token for each broker that is asked by https."""
    for broker in catalogue.to_ask():
        if isinstance(broker, BrokerSource) and Where.parse(broker.how).way == HTTPS:
            yield checked("ID token", _id_token, broker, budget)


def _id_token(broker: BrokerSource, budget: Budget) -> str:
    from git_credential_bbjwt.vendors import id_token

    session = Session(budget, TokenCache.open(create=False), for_person=True)
    source = id_token.find_source(broker, session)
    _, claims = id_token.get(source)
    told = [f"from {source.name}", f"audience {source.audience}"]
    told += [f"{what} {_text(claims.get(name))}" for what, name in (("issuer", "iss"), ("subject", "sub"))]
    expires = claims.get("exp")
    if isinstance(expires, (int, float)) and 0 < expires < 1e11:
        told.append(f"ends at {time.strftime('%Y-%m-%d %H:%M:%S UTC', time.gmtime(expires))}")
    return ", ".join(told)


def _text(claim: object) -> str:
    return claim[:200] if isinstance(claim, str) else "missing"
