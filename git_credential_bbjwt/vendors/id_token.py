"""The ID token that proves this job's identity to an https broker: where it comes from, and whether it may be sent.

The token is read here without verifying it; that is the broker's work. It is not sent to a broker that it was not made
for, because whoever receives it could pass for this job elsewhere. Sources: OpenID Connect Core 1.0 section 2; the
platforms' pages as of November 2026: GitHub "OpenID Connect reference", GitLab "OpenID Connect (OIDC) Authentication
Using ID Tokens", Atlassian "Integrate Pipelines with resource servers using OIDC", Buildkite "buildkite-agent oidc",
CircleCI "Using OpenID Connect tokens in jobs", Kubernetes "Configure Service Accounts for Pods".
"""

import functools
import json
import os
import time
from collections.abc import Callable
from typing import NamedTuple
from urllib.parse import quote, urlsplit

from git_credential_bbjwt.core.digest import digest
from git_credential_bbjwt.core.failures import BrokerError
from git_credential_bbjwt.core.files import read_file
from git_credential_bbjwt.core.on_demand import BrokerSource
from git_credential_bbjwt.core.output import hide, trace
from git_credential_bbjwt.core.protocol import is_visible_ascii
from git_credential_bbjwt.core.where import Where
from git_credential_bbjwt.system import child_process, shell
from git_credential_bbjwt.system.budget import Budget
from git_credential_bbjwt.vendors.broker_answer import claims_in
from git_credential_bbjwt.vendors.session import Session

# Longer than any platform's token. Bytes.
_LONGEST_TOKEN = 16 * 1024

# The broker's clock and this one may differ by so much. Seconds.
_LEEWAY = 60

# By the variable that each platform sets: what to write so that a job has an ID token.
_PLATFORMS = {
    "GITHUB_ACTIONS": "give the job `permissions: id-token: write` in its workflow",
    "GITLAB_CI": 'give the job `id_tokens: BBJWT_ID_TOKEN: aud: "{audience}"` in .gitlab-ci.yml',
    "BITBUCKET_BUILD_NUMBER": 'give the step `oidc: audiences: ["{audience}"]` in bitbucket-pipelines.yml',
    "CIRCLECI": "set BBJWT_ID_TOKEN_COMMAND to "
    """'circleci run oidc get --claims "{{\\"aud\\":\\"$BBJWT_AUDIENCE\\"}}"'""",
    "BUILDKITE": "set BBJWT_ID_TOKEN_COMMAND to 'buildkite-agent oidc request-token --audience \"$BBJWT_AUDIENCE\"'",
}
_ANYWHERE = "set BBJWT_ID_TOKEN, BBJWT_ID_TOKEN_FILE or BBJWT_ID_TOKEN_COMMAND"


class IdTokenSource(NamedTuple):
    """Where the ID token for ``audience`` comes from.

    ``identity`` is a digest that is another for another identity, and costs no request. ``read`` returns the token's
    text; raises BrokerError.
    """

    name: str
    identity: str
    audience: str
    read: Callable[[], str]


def find_source(broker: BrokerSource, session: Session) -> IdTokenSource:
    """Return the first source of a token for ``broker`` that is present. If it fails, no other is tried.

    Raises BrokerError.
    """
    environ = os.environ
    for name in child_process.ID_TOKEN_VARIABLES:  # Their values may be secret, so no error may show them.
        hide(environ.get(name, ""))
        hide(environ.get(name, "").strip())
    audience = environ.get("BBJWT_AUDIENCE", "").strip() or Where.parse(broker.how).text

    def source(name: str, identity: tuple[str, ...], read: Callable[[], str]) -> IdTokenSource:
        return IdTokenSource(name, digest(*identity), audience, read)

    command = broker.id_token_command or environ.get("BBJWT_ID_TOKEN_COMMAND", "")
    if command.strip():
        return source("the ID token command", ("command", command), lambda: _printed(command, audience, session.budget))
    value = environ.get("BBJWT_ID_TOKEN", "")
    if value.strip():
        return source("BBJWT_ID_TOKEN", ("variable", value), lambda: value)
    path = broker.id_token_file or environ.get("BBJWT_ID_TOKEN_FILE", "").strip()
    if path:
        return source(path, ("file", path, str(_time_of(path))), lambda: _in_file(path))
    url, secret = environ.get("ACTIONS_ID_TOKEN_REQUEST_URL", ""), environ.get("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "")
    if url and secret:
        read = functools.partial(_of_github, url, secret, audience, session)
        return source("GitHub Actions", ("github", url, secret), read)
    step = environ.get("BITBUCKET_STEP_OIDC_TOKEN", "")
    if step.strip():
        return source("BITBUCKET_STEP_OIDC_TOKEN", ("variable", step), lambda: step)
    how = next((how for name, how in _PLATFORMS.items() if environ.get(name)), _ANYWHERE)
    raise BrokerError("the broker needs an ID token, and there is none", how.format(audience=audience))


def get(source: IdTokenSource) -> tuple[str, dict[str, object]]:
    """Return the token of ``source`` and its claims. Raises BrokerError for a token that must not be sent."""
    text = source.read().strip()
    hide(text)
    claims = _claims(text, source)
    stated = claims.get("aud")
    audiences = stated if isinstance(stated, list) else [stated]
    if source.audience not in audiences:
        shown = ", ".join(one for one in audiences if isinstance(one, str)) or "nobody"
        raise BrokerError(
            f"the ID token from {source.name} is for {shown[:300]}, and the broker's audience is {source.audience}",
            "request it for that audience, or set BBJWT_AUDIENCE to the one that the broker's operator names",
        )
    expires = claims.get("exp")
    now = time.time()
    if isinstance(expires, (int, float)) and not isinstance(expires, bool) and expires + _LEEWAY < now:
        raise BrokerError(
            f"the ID token from {source.name} expired {now - max(expires, 0):.0f} s ago",
            "get a new one; if it is new, check this machine's clock",
        )
    trace(f"the ID token from {source.name} is for {source.audience}")
    return text, claims


def _claims(text: str, source: IdTokenSource) -> dict[str, object]:
    """Return the claims of a token, which nobody has verified. Raises BrokerError, without the token."""
    if len(text) > _LONGEST_TOKEN:
        why = f"is over {_LONGEST_TOKEN} bytes long"
    else:
        try:
            return claims_in(text)
        except ValueError:
            why = "is not a JWT of three base64url parts"
    raise BrokerError(
        f"the ID token from {source.name} {why}",
        'use the token that the CI platform signs for this job: README, "Jobs without the secret"',
    )


def _printed(command: str, audience: str, budget: Budget) -> str:
    environment = {**child_process.for_id_token(), "BBJWT_AUDIENCE": audience}
    budget.doing = "waiting for the ID token command"
    done = shell.run(command, b"", most=_LONGEST_TOKEN, env=environment, seconds=budget.remaining())
    budget.remaining()
    output = done.output.decode("ascii", "replace").strip()
    hide(output)
    if done.status != 0:
        raise BrokerError(
            f"the ID token command failed with exit status {done.status}",
            "run it by hand, with BBJWT_AUDIENCE set, to see why",
        )
    if not output:
        raise BrokerError("the ID token command printed nothing", "it must print an ID token for $BBJWT_AUDIENCE")
    return output


def _time_of(path: str) -> int:
    try:
        return os.stat(path).st_mtime_ns
    except OSError:
        return 0


def _in_file(path: str) -> str:
    hint = "check BBJWT_ID_TOKEN_FILE or --id-token-file"
    try:
        data = read_file(path, _LONGEST_TOKEN + 2)
    except (OSError, ValueError) as problem:
        reason = getattr(problem, "strerror", None) or "not a path"
        raise BrokerError(f"the ID token cannot be read from {path}: {reason}", hint) from problem
    text = data.decode("ascii", "replace").strip()
    if not text:
        raise BrokerError(f"the file {path}, which should hold the ID token, is empty", hint)
    return text


def _of_github(url: str, secret: str, audience: str, session: Session) -> str:
    """Request a token from GitHub's own service, which gives it to whoever has the job's request token."""
    hint = "give the job `permissions: id-token: write`; ACTIONS_ID_TOKEN_REQUEST_URL is set by GitHub's runner"
    try:
        parts = urlsplit(url)
        is_usable = parts.scheme == "https" and parts.hostname and "@" not in parts.netloc and parts.port != 0
    except ValueError:
        is_usable = False
    if not is_usable or not url.isascii() or not url.isprintable() or any(one in url for one in ' \\"<>#'):
        raise BrokerError("ACTIONS_ID_TOKEN_REQUEST_URL is not an https URL without a user", hint)
    if not is_visible_ascii(secret):
        raise BrokerError("ACTIONS_ID_TOKEN_REQUEST_TOKEN is not a token", hint)
    wanted = f"audience={quote(os.fsencode(audience), safe='')}"
    target = f"{parts.path or '/'}?{parts.query}{'&' if parts.query else ''}{wanted}"
    headers = {"Authorization": f"Bearer {secret}", "Accept": "application/json"}
    origin = session.connections().take(f"https://{parts.netloc}", parts.path)
    response = origin.request("GET", target, lambda: headers)
    if response.status != 200:
        origin.close()
        raise BrokerError(f"GitHub answered {response.status} to the request for an ID token", hint)
    session.connections().give_back(origin)
    try:
        value = json.loads(response.body)["value"]
    except (ValueError, LookupError, TypeError, RecursionError):
        value = None
    if not isinstance(value, str):
        raise BrokerError("GitHub's response to the request for an ID token has none", hint)
    return value
