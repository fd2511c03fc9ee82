"""Try an https broker's configuration, without any request.

Prints whose jobs the configuration trusts and with which repositories. With an
ID token, or its claims as JSON, it prints which rules match, what the token
may read, and yes or no for each URL.

Examples:
  git-credential-bbjwt policy broker.toml
  git-credential-bbjwt policy broker.toml --id-token claims.json \\
      https://bitbucket.org/acme/widgets
"""

import argparse
import importlib.util
import json
import os
import sys
from typing import TYPE_CHECKING

from git_credential_bbjwt.core.clone_urls import parse_url
from git_credential_bbjwt.core.failures import CredentialError, UsageError
from git_credential_bbjwt.core.options import HelperOptions
from git_credential_bbjwt.core.output import hide, one_line
from git_credential_bbjwt.core.ownership import open_to_read
from git_credential_bbjwt.core.patterns import Pattern
from git_credential_bbjwt.core.repository import Repository

if TYPE_CHECKING:
    from git_credential_bbjwt.serving.id_token import IdToken
    from git_credential_bbjwt.serving.policy import Policy, Rule

# Four times as long as any token: claims that a person laid out are longer. Bytes.
_LONGEST_INPUT = 64 * 1024

# Characters of a claim's value that are shown.
_LONGEST_VALUE = 200


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("file", metavar="FILE", help="the broker's configuration, a TOML file")
    parser.add_argument("--id-token", metavar="FILE|-", help="a token, or its claims as JSON, from a file or a pipe")
    parser.add_argument("urls", nargs="*", metavar="URL", help="clone URL that the token should be able to read")


def execute(options: HelperOptions, arguments: argparse.Namespace) -> int:  # noqa: ARG001  # every command's shape
    """Print what the configuration says. Raises CredentialError for a broken file, UsageError."""
    if sys.platform == "win32":
        raise UsageError("the https broker does not run on Windows", "try its configuration on Linux")
    try:
        from git_credential_bbjwt.serving.policy import read_policy
    except ModuleNotFoundError as problem:
        raise CredentialError(
            f"the module {problem.name} is not installed", "run: pip install 'git-credential-bbjwt[broker]'"
        ) from problem

    if arguments.urls and arguments.id_token is None:
        raise UsageError("URLs are tried with an ID token", "add --id-token FILE")
    repositories = [(url, parse_url(url)) for url in arguments.urls]
    if not os.path.lexists(arguments.file):  # The word is not repeated, because it may be a secret by mistake.
        raise CredentialError("cannot read FILE: there is no such file", "name the broker's configuration")
    policy = read_policy(os.path.abspath(arguments.file))
    if arguments.id_token is None:
        _show(policy)
        return 0
    text = _input(arguments.id_token)
    is_claims = text.startswith("{")
    token, refusals = _claims_alone(text) if is_claims else _token(text, policy)
    return _judge(policy, token, refusals, repositories)


def _say(line: str) -> None:
    print(one_line(line))


def _show(policy: "Policy") -> None:
    from git_credential_bbjwt.serving.claims import leaves

    _say(f"audience: {', '.join(policy.audiences)}")
    _say(f"whole_workspace: {'on' if policy.whole_workspace else 'off'}")
    for rule in policy.rules:
        print()
        _say(f"{rule.name}, line {rule.line}")
        _say(f"  issuer: {rule.issuer}")
        _say(f"  keys: {policy.keys.get(rule.issuer) or 'by discovery'}")
        if rule.audiences != policy.audiences:
            _say(f"  audience: {', '.join(rule.audiences)}")
        for name, value in leaves(rule.claims):
            _say(f"  {name} = {json.dumps(value, ensure_ascii=False)}")
        _say(f"  repositories: {', '.join(map(str, rule.allow))}")


def _input(name: str) -> str:
    """Return the token or claims in a file, or on standard input for ``-``. Raises CredentialError."""
    what = "standard input" if name == "-" else name
    try:
        with os.fdopen(os.dup(0) if name == "-" else open_to_read(name), "rb") as file:
            text = file.read(_LONGEST_INPUT + 1).decode("utf-8").strip()
    except (OSError, ValueError) as problem:
        reason = problem.strerror if isinstance(problem, OSError) else "it is not text"
        shown = what if os.path.lexists(what) or name == "-" else "the file"
        raise CredentialError(f"the ID token cannot be read from {shown}: {reason}") from problem
    if not text:
        raise CredentialError(f"{what} is empty", "it must hold an ID token, or its claims as JSON")
    hide(text)
    return text


def _claims_alone(text: str) -> "tuple[IdToken, list[str]]":
    """Return a token with the claims that ``text`` spells, and why no broker would accept it."""
    from git_credential_bbjwt.serving.id_token import IdToken, NotAcceptedError, check_subject, parse_object

    try:
        claims = parse_object(text.encode())
    except (ValueError, RecursionError) as problem:
        raise CredentialError("the claims are not a JSON object, or have a name twice") from problem
    token = IdToken("", "", None, claims)
    _say("not checked, because these are claims only: signature, exp, iat and nbf")
    try:
        check_subject(token)
    except NotAcceptedError as problem:
        return token, [problem.what]
    return token, []


def _token(text: str, policy: "Policy") -> "tuple[IdToken, list[str]]":
    """Return the token that ``text`` is, and why the broker would not accept it. Raises CredentialError."""
    from git_credential_bbjwt.serving import id_token
    from git_credential_bbjwt.serving.issuer_keys import check_signature, read_keys

    token = id_token.parse_token(text)
    refusals = []
    try:
        id_token.check_times(token.claims)
        id_token.check_subject(token)
    except id_token.NotAcceptedError as problem:
        refusals.append(problem.what)
    source = policy.keys.get(token.issuer, "") if isinstance(token.issuer, str) else ""
    if not source.startswith("/"):
        _say("not checked, because the issuer's keys are not in a file: the signature")
    elif importlib.util.find_spec("cryptography") is None:
        _say("not checked, because cryptography is not installed: the signature")
    else:
        try:
            check_signature(token, read_keys(source))
        except id_token.NotAcceptedError as problem:
            refusals.append(problem.what)
        except (CredentialError, OSError, ValueError) as problem:
            reason = getattr(problem, "what", None) or getattr(problem, "strerror", None) or str(problem)
            raise CredentialError(f"the key file {source} cannot be used: {reason}") from problem
    return token, refusals


def _judge(policy: "Policy", token: "IdToken", refusals: list[str], repositories: list[tuple[str, Repository]]) -> int:
    """Print what the token may do; return the exit status."""
    allow: list[Pattern] = []
    for rule in policy.rules:
        why_not = _why_not(rule, token)
        _say(f"{rule.name}, line {rule.line}: {f'no: {why_not}' if why_not else 'yes'}")
        allow += () if why_not else rule.allow
    for refusal in refusals:
        _say(f"not accepted: {refusal}")
    if refusals:
        allow = []
    _say(f"may read: {', '.join(dict.fromkeys(map(str, allow))) or 'nothing'}")
    readable = [any(pattern.allows(repository) for pattern in allow) for _, repository in repositories]
    for (url, _), is_readable in zip(repositories, readable, strict=True):
        _say(f"{url}: {'yes' if is_readable else 'no'}")
    return 0 if allow and all(readable) else 1


def _why_not(rule: "Rule", token: "IdToken") -> str:
    """Return the first claim that differs from the rule, with both values; empty if the rule matches."""
    from git_credential_bbjwt.serving.claims import Difference, difference
    from git_credential_bbjwt.serving.id_token import audiences_of

    found: Difference | None
    if token.issuer != rule.issuer:
        found = Difference("iss", token.issuer, rule.issuer)
    elif not any(one in rule.audiences for one in audiences_of(token.claims)):
        found = Difference("aud", token.claims.get("aud"), list(rule.audiences))
    else:
        found = difference(rule.claims, token.claims)
    if found is None:
        return ""
    return f"{found.name} is {_value(found.found)}, and the rule says {_value(found.wanted)}"


def _value(value: object) -> str:
    return "missing" if value is None else json.dumps(value, ensure_ascii=False)[:_LONGEST_VALUE]
