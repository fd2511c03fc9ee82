"""What git is answered: a token, with what lets git ask again should the server refuse it, or to quit.

Sources: git-credential(1) (attributes, ``state[]``, ``continue``), gitcredentials(7) (``quit``).
"""

from git_credential_bbjwt.git.protocol import Request, format_answer
from git_credential_bbjwt.tokens.record import STATE_LENGTH

#: User name of every token ("Use OAuth on Bitbucket Cloud").
USERNAME = "x-token-auth"

#: Makes git stop at once instead of asking other helpers or a person.
QUIT = format_answer([("quit", "1")])

# Tells our `state[]` entries from those of other helpers.
_STATE_PREFIX = "bbjwt:"


def refused_states(request: Request) -> list[str]:
    """The states of tokens this git command has already been refused with (git >= 2.46 sends them back)."""
    return [
        state.decode("ascii", "replace").removeprefix(_STATE_PREFIX)[:STATE_LENGTH]
        for state in request.state
        if state.startswith(_STATE_PREFIX.encode())
    ]


def state_entry(state: str) -> str:
    """The ``state[]`` entry that names a token by its `token_state`."""
    return _STATE_PREFIX + state


def fresh_answer(token: str, expires: int | None, username: str = USERNAME) -> bytes:
    """The answer that carries a token just minted. ``expires`` is a Unix time, None where it is not known."""
    end = [] if expires is None else [("password_expiry_utc", str(expires))]
    return format_answer([("username", username), ("password", token), *end])


def cached_answer(request: Request, token: str, expires: int | None, state: str, username: str = USERNAME) -> bytes:
    """The answer that carries a cached token: with ``continue``, git asks again should the server refuse it.

    ``state`` is the token's `token_state`.
    """
    answer = fresh_answer(token, expires, username)
    if b"state" in request.capabilities:
        state = state_entry(state)
        answer = (
            format_answer([("capability[]", "state")]) + answer + format_answer([("state[]", state), ("continue", "1")])
        )
    return answer
