"""Register an installation: its secret goes to the keyring, the rest to the registry.

FILE is the payload of the app's `installed` lifecycle callback, or an OAuth consumer as {"oauthConsumer": {"key": "K",
"secret": "S", "workspace": "acme"}}, also in the wrappers of frameworks and secret stores. FILE may hold many: a JSON
array, or one payload per line. All are checked before the first is stored. A dash reads from standard input.
Registering again replaces the earlier entry, after the new secret was tried. No secret is ever an argument.

Examples:
  git-credential-bbjwt register installed.json
  git-credential-bbjwt register installed.json \\
      --repository https://bitbucket.org/acme/widgets
  git-credential-bbjwt register --oauth-consumer --workspace acme \\
      --after-connect
"""

import argparse

from git_credential_bbjwt.commands.registration import given, trial
from git_credential_bbjwt.commands.registration.registration import Given, Registration
from git_credential_bbjwt.core.failures import UsageError
from git_credential_bbjwt.core.options import HelperOptions
from git_credential_bbjwt.core.output import note
from git_credential_bbjwt.core.repository import is_name
from git_credential_bbjwt.installations.installation import Installation, SecretPlace
from git_credential_bbjwt.installations.registry_changes import RegistryFolder


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("file", nargs="?", metavar="FILE", help="the payload; - for standard input")
    parser.add_argument(
        "--workspace",
        action="append",
        default=[],
        metavar="SLUG",
        help="workspace slug, if the payload has none (repeatable)",
    )
    parser.add_argument("--system", action="store_true", help="for all users of this machine (needs root)")
    parser.add_argument(
        "--insecure-storage", action="store_true", help="keep the secret in a file of mode 0600 instead of the keyring"
    )
    parser.add_argument("--secret-file", metavar="FILE", help="secret of a registered app, if its payloads have none")
    parser.add_argument("--oauth-consumer", action="store_true", help="ask for an OAuth consumer's key and secret")
    parser.add_argument("--after-connect", action="store_true", help="use the OAuth consumer when Connect has ended")
    parser.add_argument("--repository", metavar="URL", help="then try to get a token for this repository")


def execute(options: HelperOptions, arguments: argparse.Namespace) -> int:
    """Register. Raises UsageError, InstallationError, SecretError."""
    workspaces = [workspace.lower() for workspace in arguments.workspace]
    _check_usage(arguments, workspaces)
    registry = RegistryFolder(system=arguments.system)
    secret = given.read_secret(arguments.secret_file) if arguments.secret_file is not None else ""
    if arguments.oauth_consumer:
        payloads, where = [given.ask_consumer(workspaces)], "the values given"
    else:
        payloads, where = given.read_payloads(arguments.file)
    if len(payloads) > 1 and (workspaces or arguments.repository):
        raise UsageError("--workspace and --repository go with one payload, and these are several")
    also = Given(workspaces, secret, arguments.after_connect, options)
    registration = Registration(registry, insecure=arguments.insecure_storage, also=also)
    wanted = registration.check(payloads, where)
    if registration.uses_secret_of_app:
        note("the secret of an app that is registered under Develop apps opens every workspace that has the app")
    if len(payloads) > 1:
        return registration.store_many(wanted)
    installations = [one.installation for one in wanted]
    repository = trial.parse_repository(arguments.repository, installations) if arguments.repository else None
    replaced = registration.replaced_by(wanted)
    if replaced:
        app = next(one for one in wanted if not one.installation.is_consumer)
        remedy = (
            f"register the newest payload; to remove the registered one: {_unregister(replaced[0], arguments.system)}"
        )
        trial.check_secret(
            app.installation._replace(shared_secret=app.secret, secret_place=SecretPlace.PAYLOAD), options, remedy
        )
    registered = registration.store(wanted)
    for name in dict.fromkeys(one.name for one in registered):
        _say(name, [one for one in registered if one.name == name], registry)
    if repository is not None:
        trial.get_token(repository, registered[0], options)
    return 0


def _check_usage(arguments: argparse.Namespace, workspaces: list[str]) -> None:
    if not all(map(is_name, workspaces)):
        raise UsageError("--workspace needs the slug of the workspace's URLs")
    if arguments.file is None and not arguments.oauth_consumer:
        raise UsageError(
            "register needs FILE, the path of a payload, or - to read it from standard input",
            "git-credential-bbjwt register FILE",
        )
    if arguments.file is not None and arguments.oauth_consumer:
        raise UsageError("--oauth-consumer asks for the key and the secret: leave out FILE")
    if arguments.oauth_consumer and arguments.secret_file is not None:
        raise UsageError("--secret-file is for payloads of Connect apps, and --oauth-consumer asks for the secret")


def _unregister(old: Installation, system: bool) -> str:
    return f"git-credential-bbjwt unregister {old.workspaces[0]} --app {old.app_key}{' --system' if system else ''}"


def _say(name: str, registered: list[Installation], registry: RegistryFolder) -> None:
    new = registered[0]
    slugs = ", ".join(slug for one in registered for slug in one.workspaces)
    note(
        f"registered the {name} for {slugs} on {new.host}; the secret is {new.secret_place.described}, "
        f"the rest in {registry.path}"
    )
    if new.opens_workspace:
        when = "when Connect has ended, " if new.after_connect else ""
        note(f"{when}its tokens open every repository of {slugs}")
