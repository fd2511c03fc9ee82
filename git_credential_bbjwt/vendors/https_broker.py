"""Asking a broker by https, with an ID token that proves this job's identity.

The response is not trusted: only text in git's format is taken, no redirect is followed, and the ID token goes to the
broker's exact origin only. Sources: RFC 6750 section 2.1 (``Bearer``), git-credential(1), "INPUT/OUTPUT FORMAT".
"""

from git_credential_bbjwt.core.digest import digest
from git_credential_bbjwt.core.failures import BrokerError, RefusedError
from git_credential_bbjwt.core.output import trace
from git_credential_bbjwt.core.repository import Repository
from git_credential_bbjwt.core.server_text import safe_text
from git_credential_bbjwt.core.where import Where
from git_credential_bbjwt.installations.asked import Broker
from git_credential_bbjwt.network.response import Response
from git_credential_bbjwt.tokens.record import BROKERED
from git_credential_bbjwt.tokens.token import Token
from git_credential_bbjwt.vendors import id_token
from git_credential_bbjwt.vendors.broker import request_for
from git_credential_bbjwt.vendors.broker_answer import HINT, LONGEST_ANSWER, checked, no_token
from git_credential_bbjwt.vendors.session import Session

_PATH = "/git-credentials"

# Characters of a broker's reason that are shown.
_LONGEST_REASON = 500

_UNAUTHORIZED, _FORBIDDEN = 401, 403

# What to do about a refusal, by its status.
_SEE = "git-credential-bbjwt doctor URL shows what this job's ID token says"
_HINTS = {
    _UNAUTHORIZED: f"{_SEE}; its issuer and audience must be those that the broker expects",
    _FORBIDDEN: f"{_SEE}; the broker's operator tries it with git-credential-bbjwt policy FILE --id-token",
}


class HttpsBroker:
    """The vendor that asks a broker by https."""

    opens_workspace = False

    def __init__(self, broker: Broker, session: Session) -> None:
        self.identity = BROKERED + digest(broker.how)
        self._broker = broker
        self._where = Where.parse(broker.how)
        self._session = session

    def token(self, repository: Repository, scope: str, refused: list[str]) -> Token | None:  # noqa: ARG002  # the broker's side has the scope
        """Return the broker's token; None if it has nothing to say about ``repository``.

        Raises BrokerError, ConnectionFailedError.
        """
        self._session.has_asked = True
        answer = ask_by_https(self._broker, self._where, repository, refused, self._session)
        return checked(answer, b"", repository, self.identity)


def ask_by_https(broker: Broker, where: Where, repository: Repository, refused: list[str], session: Session) -> bytes:
    """Return the broker's answer in git's format. Raises BrokerError, ConnectionFailedError.

    A refusal is remembered for this identity: a 401 for the broker, a 403 for the repository.
    """
    audience = id_token.audience_for(where.text)
    source = id_token.find_source(broker.id_token_command, broker.id_token_file, audience, session)
    about = ("https broker", where.text, source.identity)
    keys = {_UNAUTHORIZED: digest(*about), _FORBIDDEN: digest(*about, repository.host, repository.full_name)}
    for key in keys.values():
        earlier = session.failures.find(key)
        if earlier is not None:
            raise BrokerError(earlier.what, earlier.hint)
    token = id_token.get(source, audience)
    trace(f"the ID token from {token.source} is for {audience}")
    headers = {
        "Content-Type": "text/plain; charset=utf-8",
        "Accept": "text/plain",
        "Authorization": f"Bearer {token.text}",
    }
    body = request_for(repository, refused)
    origin = session.connections().take(where.text.removesuffix(where.path), where.path + _PATH)
    response = origin.request("POST", where.path + _PATH, lambda: headers, body, is_final=_is_refusal)
    if origin.is_idle:
        session.connections().give_back(origin)
    if not _is_refusal(response):
        return _answer(response, where, repository)
    reason = safe_text(_error_in(response.body), _LONGEST_REASON) or "it gave no reason"
    problem = no_token(repository, reason, _HINTS.get(response.status, HINT))
    if response.status in keys:
        refusal = RefusedError(problem.what, problem.hint, status=response.status)
        session.failures.note(keys[response.status], refusal)
    raise problem


def _answer(response: Response, where: Where, repository: Repository) -> bytes:
    """Return the body of a good response. Raises BrokerError."""
    if 300 <= response.status < 400:
        trouble = f"{where.text} answered with a redirect ({response.status}), which the ID token does not follow"
    elif response.status != 200:
        trouble = f"{where.text} answered {response.status}"
    elif not _is_text(response):
        trouble = f"{where.text} answered with something else than text/plain"
    elif len(response.body) <= LONGEST_ANSWER and response.body != b"\n" and not response.body.endswith(b"\n\n"):
        trouble = f"the answer of {where.text} is incomplete: it does not end with a blank line"
    else:
        return response.body
    raise no_token(repository, trouble, "check that this is the URL of the broker; BBJWT_TRACE=1 shows each step")


def _is_text(response: Response) -> bool:
    kind = response.headers.get("Content-Type") or ""
    return kind.partition(";")[0].strip().lower() == "text/plain"


def _is_refusal(response: Response) -> bool:
    """Return whether a broker said no, and not a proxy in front of it: the broker itself has tried again already."""
    return response.status != 200 and _is_text(response) and response.body.partition(b"\n")[0].strip() == b"quit=1"


def _error_in(body: bytes) -> str:
    for line in body[:LONGEST_ANSWER].split(b"\n"):
        name, _, value = line.partition(b"=")
        if name == b"bbjwt-error":
            return value.decode("utf-8", "replace")
    return ""
