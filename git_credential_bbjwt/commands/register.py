"""Register an installation, with its secret in the keyring.

FILE is the payload of the app's `installed` lifecycle callback, or an OAuth
consumer as {"oauthConsumer": {"key": "K", "secret": "S", "workspace":
"acme"}}, also in the wrappers of frameworks and secret stores. FILE may hold
many: a JSON array, or one payload per line. All are checked before the first
is stored. A dash reads from standard input. Registering again replaces the
earlier entry, after the new secret was tried. No secret is ever an argument.

Examples:
  git-credential-bbjwt register installed.json
  git-credential-bbjwt register installed.json \\
      --repository https://bitbucket.org/acme/widgets
  git-credential-bbjwt register --oauth-consumer --workspace acme \\
      --after-connect
"""

import argparse

from git_credential_bbjwt.commands.command_line import slug
from git_credential_bbjwt.commands.registration import payload_input
from git_credential_bbjwt.commands.registration.registration import NO_APP, Registration, Wanted, check_secret
from git_credential_bbjwt.core.failures import UsageError
from git_credential_bbjwt.core.files import APP_NAME
from git_credential_bbjwt.core.options import HelperOptions
from git_credential_bbjwt.core.output import note
from git_credential_bbjwt.getting.obtain import token_for_person
from git_credential_bbjwt.git.clone_urls import parse_url
from git_credential_bbjwt.installations.installation import Installation, SecretPlace
from git_credential_bbjwt.installations.registry_changes import RegistryFolder


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    payload = parser.add_mutually_exclusive_group(required=True)
    payload.add_argument("file", nargs="?", metavar="FILE|-", help="the payload; - for standard input")
    payload.add_argument("--oauth-consumer", action="store_true", help="ask for an OAuth consumer's key and secret")
    parser.add_argument(
        "--workspace",
        action="append",
        default=[],
        type=slug,
        metavar="SLUG",
        help="workspace slug, if the payload has none (repeatable)",
    )
    parser.add_argument("--system", action="store_true", help="for all users of this machine (needs root)")
    parser.add_argument(
        "--insecure-storage", action="store_true", help="keep the secret in a file of mode 0600 instead of the keyring"
    )
    parser.add_argument("--secret-file", metavar="FILE", help="secret of a registered app, if its payloads have none")
    parser.add_argument("--after-connect", action="store_true", help="use the OAuth consumer when Connect has ended")
    parser.add_argument("--repository", metavar="URL", help="then try to get a token for this repository")


def execute(options: HelperOptions, arguments: argparse.Namespace) -> int:
    """Read the payloads, check all of them, and store the installations. Raises CredentialError."""
    if arguments.oauth_consumer and arguments.secret_file is not None:
        raise UsageError(*NO_APP)
    registration = Registration(
        RegistryFolder(system=arguments.system),
        SecretPlace.FILE if arguments.insecure_storage else SecretPlace.KEYRING,
        arguments.workspace,
        payload_input.read_secret(arguments.secret_file) if arguments.secret_file is not None else "",
        arguments.after_connect,
        options.timeout,
    )
    if arguments.oauth_consumer or arguments.file == "-":
        registration.check_places()
    if arguments.oauth_consumer:
        payloads, where = [payload_input.ask_consumer(arguments.workspace)], "the values given"
    else:
        payloads, where = payload_input.read_payloads(arguments.file)
    if len(payloads) > 1 and (arguments.workspace or arguments.repository):
        raise UsageError(
            "--workspace and --repository go with one payload, and these are several", "register them one by one"
        )
    wanted = registration.check(payloads, where)
    if len(payloads) > 1:
        return registration.store_many(wanted)
    repository = parse_url(arguments.repository) if arguments.repository else None
    if repository is not None and not any(one.installation.serves(repository) for one in wanted):
        raise UsageError(
            f"{repository.full_name} on {repository.host} belongs to another installation",
            "name a repository of this one: --repository URL",
        )
    _try_before_replacing(registration, wanted, system=arguments.system)
    registered = registration.store(wanted)
    for name in dict.fromkeys(one.name for one in registered):
        _say([one for one in registered if one.name == name], registration.registry)
    if repository is not None:
        token_for_person(repository, options.replaced(token_store="none", app=registered[0].app_key))
        note(f"got a token for {repository.full_name}: all is well")
    return 0


def _try_before_replacing(registration: Registration, wanted: list[Wanted], *, system: bool) -> None:
    """Try the secret of an app that replaces a registered app. Raises InstallationError if Bitbucket refuses it."""
    replaced = registration.replaced_by(wanted)
    if not replaced:
        return
    app = next(one for one in wanted if not one.installation.is_consumer)
    new = app.installation._replace(shared_secret=app.secret, secret_place=SecretPlace.PAYLOAD)
    unregister = f"{APP_NAME} unregister {replaced[0].workspaces[0]} --app {replaced[0].app_key}"
    unregister += " --system" if system else ""
    remedy = f"register the newest payload; to remove the registered one: {unregister}"
    check_secret(new, registration.timeout, remedy)


def _say(registered: list[Installation], registry: RegistryFolder) -> None:
    """Say what was registered of one app or consumer, for one workspace or more."""
    new = registered[0]
    slugs = ", ".join(slug for one in registered for slug in one.workspaces)
    note(
        f"registered the {new.name} for {slugs} on {new.host}; the secret is {new.secret_place.described}, "
        f"the rest in {registry.path}"
    )
    if new.is_consumer:
        when = "when Connect has ended, " if new.after_connect else ""
        note(f"{when}its tokens open every repository of {slugs}")
