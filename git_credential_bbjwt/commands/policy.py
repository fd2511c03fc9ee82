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
from collections.abc import Callable
from typing import TYPE_CHECKING

from git_credential_bbjwt.core.failures import CredentialError, UsageError
from git_credential_bbjwt.core.options import HelperOptions
from git_credential_bbjwt.core.output import hide, one_line
from git_credential_bbjwt.core.patterns import Pattern
from git_credential_bbjwt.core.repository import Repository
from git_credential_bbjwt.git.clone_urls import parse_url

if TYPE_CHECKING:
    from git_credential_bbjwt.serving.id_token import IdToken
    from git_credential_bbjwt.serving.policy import Policy

# Four times as long as any token: claims that a person laid out are longer. Bytes.
_LONGEST_INPUT = 64 * 1024

# Characters of a claim's value that are shown.
_LONGEST_VALUE = 200

_HINT = "give --id-token a file that holds an ID token, or its claims as JSON"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("file", metavar="FILE", help="the broker's configuration, a TOML file")
    parser.add_argument("--id-token", metavar="FILE|-", help="a token, or its claims as JSON, from a file or a pipe")
    parser.add_argument(  # Without a default, argparse would call it required.
        "urls", nargs="*", default=[], metavar="URL", help="clone URL that the token should be able to read"
    )


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
    token = _token(_input(arguments.id_token))
    return _judge(policy, token, _refusals(token, policy), repositories)


def _say(line: str) -> None:
    print(one_line(line))


def _show(policy: "Policy") -> None:
    _say(f"audience: {', '.join(policy.audiences)}")
    _say(f"whole_workspace: {'on' if policy.whole_workspace else 'off'}")
    for rule in policy.rules:
        print()
        _say(f"{rule.name}, line {rule.line}")
        _say(f"  issuer: {rule.issuer}")
        _say(f"  keys: {policy.keys.get(rule.issuer) or 'by discovery'}")
        if rule.audiences != policy.audiences:
            _say(f"  audience: {', '.join(rule.audiences)}")
        for name, value in rule.claims.items():
            _say(f"  {name} = {json.dumps(value, ensure_ascii=False)}")
        _say(f"  repositories: {', '.join(map(str, rule.allow))}")


def _input(name: str) -> str:
    """Return the token or claims in a file, or on standard input for ``-``. Raises CredentialError."""
    what = "standard input" if name == "-" else name
    try:
        # A pipe may not have its content yet: this waits for it.
        with open(0 if name == "-" else name, "rb", closefd=name != "-") as file:
            text = file.read(_LONGEST_INPUT + 1).decode("utf-8").strip()
    except (OSError, ValueError) as problem:
        reason = problem.strerror if isinstance(problem, OSError) else "it is not text"
        shown = what if os.path.lexists(what) or name == "-" else "the file"
        raise CredentialError(f"the ID token cannot be read from {shown}: {reason}", _HINT) from problem
    if not text:
        raise CredentialError(f"{what} is empty", _HINT)
    hide(text)
    return text


def _token(text: str) -> "IdToken":
    """Return the token that ``text`` is, or a token with the claims that it spells. Raises CredentialError."""
    from git_credential_bbjwt.serving.id_token import IdToken, parse_object, parse_token

    try:
        if not text.startswith("{"):
            return parse_token(text)
        return IdToken("", "", None, parse_object(text.encode()))
    except CredentialError as problem:
        raise CredentialError(problem.what, _HINT) from problem
    except ValueError as problem:
        raise CredentialError("the claims are not a JSON object, or have a name twice", _HINT) from problem


def _refusals(token: "IdToken", policy: "Policy") -> list[str]:
    """Return why the broker would not accept the token; say what cannot be checked here. Raises CredentialError."""
    from git_credential_bbjwt.serving import id_token

    checks: list[Callable[[], None]] = [lambda: id_token.check_subject(token)]
    source = policy.keys.get(token.issuer, "") if isinstance(token.issuer, str) else ""
    if not token.text:
        _say("not checked, because these are claims only: signature, exp, iat and nbf")
    else:
        checks.append(lambda: id_token.check_times(token.claims))
        if not source.startswith("/"):
            _say("not checked, because the issuer's keys are not in a file: the signature")
        elif importlib.util.find_spec("cryptography") is None:
            _say("not checked, because cryptography is not installed: the signature")
        else:
            checks.append(lambda: _check_signature(token, source))
    refusals = []
    for check in checks:
        try:
            check()
        except id_token.NotAcceptedError as problem:
            refusals.append(problem.what)
    return refusals


def _check_signature(token: "IdToken", path: str) -> None:
    from git_credential_bbjwt.serving.issuer_keys import check_signature, read_keys

    try:
        keys = read_keys(path)
    except ValueError as problem:
        raise CredentialError(f"the key file {path} cannot be used: {problem}") from problem
    check_signature(token, keys)


def _judge(policy: "Policy", token: "IdToken", refusals: list[str], repositories: list[tuple[str, Repository]]) -> int:
    """Print what the token may do; return the exit status."""
    allow: list[Pattern] = []
    for rule in policy.rules:
        found = rule.mismatch(token)
        if found is None:
            verdict = "yes"
            allow += rule.allow
        else:
            verdict = f"no: {found.name} is {_value(found.found)}, and the rule says {_value(found.wanted)}"
        _say(f"{rule.name}, line {rule.line}: {verdict}")
    for refusal in refusals:
        _say(f"not accepted: {refusal}")
    if refusals:
        allow = []
    _say(f"may read: {', '.join(dict.fromkeys(map(str, allow))) or 'nothing'}")
    readable = [any(pattern.allows(repository) for pattern in allow) for _, repository in repositories]
    for (url, _), is_readable in zip(repositories, readable, strict=True):
        _say(f"{url}: {'yes' if is_readable else 'no'}")
    return 0 if allow and all(readable) else 1


def _value(value: object) -> str:
    return "missing" if value is None else json.dumps(value, ensure_ascii=False)[:_LONGEST_VALUE]
