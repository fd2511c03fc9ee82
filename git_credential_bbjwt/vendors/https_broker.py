"""Get tokens from a broker by https, with an ID token that proves this job's identity.

The response is not trusted: only text in git's format is taken, no redirect is followed, and the ID token goes to the
broker's exact origin only. Sources: RFC 6750 section 2.1 (``Bearer``), git-credential(1), "INPUT/OUTPUT FORMAT".
"""

from git_credential_bbjwt.core.digest import digest
from git_credential_bbjwt.core.failures import BrokerError, RefusedError
from git_credential_bbjwt.core.on_demand import BrokerSource
from git_credential_bbjwt.core.repository import Repository
from git_credential_bbjwt.core.where import Where
from git_credential_bbjwt.network.response import Response
from git_credential_bbjwt.tokens.token import Token
from git_credential_bbjwt.vendors import id_token
from git_credential_bbjwt.vendors.broker_answer import LONGEST_ANSWER, no_token, parse_answer
from git_credential_bbjwt.vendors.session import Session

_PATH = "/git-credentials"

# What to do about a refusal, by its status.
_SEE = "git-credential-bbjwt doctor URL shows what this job's ID token says"
_HINTS = {
    401: f"{_SEE}; its issuer and audience must be those that the broker expects",
    403: f"{_SEE}; the broker's operator tries it with git-credential-bbjwt policy FILE --id-token",
}


def ask_by_https(
    broker: BrokerSource, where: Where, repository: Repository, request: bytes, session: Session, identity: str
) -> Token | None:
    """Return the token of the broker at ``where``; None if the broker answers nothing for ``repository``.

    A refusal is remembered for this identity: a 401 for the broker, a 403 for the repository. Raises BrokerError,
    ConnectionFailedError.
    """
    source = id_token.find_source(broker, session)
    about = ("https broker", where.text, source.identity)
    keys = {401: digest(*about), 403: digest(*about, repository.host, repository.full_name)}
    for key in keys.values():
        earlier = session.failures.find(key)
        if earlier is not None:
            raise BrokerError(earlier.what, earlier.hint)
    token, _ = id_token.get(source)
    headers = {
        "Content-Type": "text/plain; charset=utf-8",
        "Accept": "text/plain",
        "Authorization": f"Bearer {token}",
    }
    origin = session.connections().take(where.text.removesuffix(where.path), where.path + _PATH)
    response = origin.request("POST", where.path + _PATH, lambda: headers, request, is_final=_is_refusal)
    session.connections().give_back(origin)
    if not _is_refusal(response):
        _check(response, where, repository)
    try:
        return parse_answer(response.body, b"", repository, identity)
    except BrokerError as problem:
        if response.status not in keys:
            raise
        refusal = RefusedError(problem.what, _HINTS[response.status], status=response.status)
        session.failures.note(keys[response.status], refusal)
        raise BrokerError(refusal.what, refusal.hint) from problem


def _check(response: Response, where: Where, repository: Repository) -> None:
    """Raise BrokerError if ``response`` is not a complete answer of a broker."""
    if 300 <= response.status < 400:
        trouble = f"{where.text} answered with a redirect ({response.status}), which the ID token does not follow"
    elif response.status != 200:
        trouble = f"{where.text} answered {response.status}"
    elif not _is_text(response):
        trouble = f"{where.text} answered with something else than text/plain"
    elif len(response.body) <= LONGEST_ANSWER and response.body != b"\n" and not response.body.endswith(b"\n\n"):
        trouble = f"the answer of {where.text} is incomplete: it does not end with a blank line"
    else:
        return
    raise no_token(repository, trouble, "check that this is the URL of the broker; BBJWT_TRACE=1 shows each step")


def _is_text(response: Response) -> bool:
    kind = response.headers.get("Content-Type") or ""
    return kind.partition(";")[0].strip().lower() == "text/plain"


def _is_refusal(response: Response) -> bool:
    """Return whether the broker itself refuses, and not a proxy in front of it. Then no further attempt helps."""
    return response.status != 200 and _is_text(response) and response.body.startswith(b"quit=1\n")
