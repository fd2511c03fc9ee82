"""What git is answered: a token, with what lets git ask again should the server refuse it, or to quit.

Sources: git-credential(1) (attributes, ``state[]``, ``continue``), gitcredentials(7) (``quit``).
"""

from git_credential_bbjwt.git.protocol import Request, format_answer
from git_credential_bbjwt.tokens.cache import token_state

#: User name of every token ("Use OAuth on Bitbucket Cloud").
USERNAME = "x-token-auth"

#: Makes git stop at once instead of asking other helpers or a person.
QUIT = format_answer([("quit", "1")])

# Tells our `state[]` entries from those of other helpers.
_STATE_PREFIX = "bbjwt:"


def refused_states(request: Request) -> list[str]:
    """The states of tokens this git command has already been refused with (git >= 2.46 sends them back)."""
    return [
        state.decode("ascii", "replace").removeprefix(_STATE_PREFIX)
        for state in request.state
        if state.startswith(_STATE_PREFIX.encode())
    ]


def fresh_answer(token: str, expires: int) -> bytes:
    """The answer that carries a token just minted."""
    return format_answer([("username", USERNAME), ("password", token), ("password_expiry_utc", str(expires))])


def cached_answer(request: Request, token: str, expires: int) -> bytes:
    """The answer that carries a cached token: with ``continue``, git asks again should the server refuse it."""
    answer = fresh_answer(token, expires)
    if b"state" in request.capabilities:
        state = _STATE_PREFIX + token_state(token.encode())
        answer = (
            format_answer([("capability[]", "state")]) + answer + format_answer([("state[]", state), ("continue", "1")])
        )
    return answer
