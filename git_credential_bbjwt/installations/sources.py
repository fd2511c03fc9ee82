"""The sources of installations on this machine, in the order in which they are asked."""

import os

from git_credential_bbjwt.core.options import HelperOptions
from git_credential_bbjwt.core.repository import Repository
from git_credential_bbjwt.installations.source import (
    CLOUD_HOST,
    REGISTRY_FOLDER,
    Named,
    Payload,
    Source,
    Text,
    unpacked,
)
from git_credential_bbjwt.system.places import site_config_folder, user_config_folder

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

# No path is longer (PATH_MAX), and to ask the system for one would be an error of its own.
_LONGEST_PATH = 4096


class Sources:
    """All sources on this machine, in the order in which they are asked.

    ``jwt`` is a JWT signed elsewhere. ``hosts`` are known whatever the sources say: those of ``--host``, or else
    Bitbucket Cloud's.
    """

    def __init__(self, sources: list[Source], jwt: Text | None, hosts: tuple[str, ...]) -> None:
        self.sources = sources
        self.jwt = jwt
        self.hosts = hosts

    def is_empty(self) -> bool:
        """Whether the machine has no source of installations at all."""
        return self.jwt is None and not any(source.is_there() for source in self.sources)

    def may_name(self, host: str) -> bool:
        """Return False if certainly no source serves ``host``; True is only a reason to look closer."""
        if host in self.hosts:
            # A payload may turn out to be broken, which is an error for a host that it might have served.
            texts = [source for source in self.sources if isinstance(source, Named)]
            if self.jwt or any(text.problem or text.data for text in texts):
                return True
        return any(source.may_name(host) for source in self.sources)

    def stamp(self, repository: Repository) -> str:
        """Return a text that changes whenever the sources say something else about ``repository``."""
        stamps = [source.stamp(repository) for source in self.sources]
        return ";".join([*stamps, self.jwt.stamp(repository)] if self.jwt else stamps)

    def stamp_to_keep(self, repository: Repository) -> str:
        """Return the stamp for a record; if a change could still go unnoticed, it is empty, as no later stamp is."""
        every = [*self.sources, self.jwt] if self.jwt else self.sources
        return self.stamp(repository) if all(source.is_settled() for source in every) else ""


def _payload_in_variable(variable: str) -> Source:
    """Return the payload in a variable or in the file it names. The value may be a secret, so it is never shown."""
    value = os.environ[variable]
    where = f"the variable {variable}"
    if len(value) < _LONGEST_PATH and os.path.lexists(value):
        return Payload.in_file(value)
    payload = unpacked(value.encode("utf-8", "surrogateescape"))
    if payload is None:
        from git_credential_bbjwt.installations.remedies import remedy_for_value

        source = Payload(where)
        source.problem, source.remedy = remedy_for_value(value)
        return source
    return Payload.of(where, payload)


def _jwt_in_variable() -> Text | None:
    environ = os.environ
    if environ.get("BBJWT_JWT"):
        data = environ["BBJWT_JWT"].encode("utf-8", "surrogateescape")
        return Text.of("the variable BBJWT_JWT", data)
    if environ.get("BBJWT_JWT_FILE"):
        return Text.in_file(environ["BBJWT_JWT_FILE"], named_by="BBJWT_JWT_FILE")
    return None


def _of_option(options: HelperOptions, hosts: tuple[str, ...]) -> Source | None:  # noqa: ARG001  # every row's shape
    if options.installation is None:
        return None
    return Payload.in_file(options.installation, named_by="--installation")


def _of_option_command(options: HelperOptions, hosts: tuple[str, ...]) -> Source | None:
    if options.installation_command is None:
        return None
    from git_credential_bbjwt.installations.asked import Command

    return Command("--installation-command", options.installation_command, hosts)


def _of_variable(options: HelperOptions, hosts: tuple[str, ...]) -> Source | None:  # noqa: ARG001  # as above
    return _payload_in_variable("BBJWT_INSTALLATION") if os.environ.get("BBJWT_INSTALLATION") else None


def _of_variable_command(options: HelperOptions, hosts: tuple[str, ...]) -> Source | None:  # noqa: ARG001  # as above
    command = os.environ.get("BBJWT_INSTALLATION_COMMAND")
    if not command:
        return None
    from git_credential_bbjwt.installations.asked import Command

    return Command("the variable BBJWT_INSTALLATION_COMMAND", command, hosts)


def _of_systemd(options: HelperOptions, hosts: tuple[str, ...]) -> Source | None:  # noqa: ARG001  # as above
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    return Payload.in_file(folder + "/bbjwt-installation", optional=True) if folder else None


def _of_broker(options: HelperOptions, hosts: tuple[str, ...]) -> Source | None:
    if options.broker is None:
        return None
    from git_credential_bbjwt.installations.asked import Broker

    return Broker("the broker", options.broker, hosts, options.id_token_command, options.id_token_file)


def _of_user(options: HelperOptions, hosts: tuple[str, ...]) -> Source | None:  # noqa: ARG001  # as above
    folder = user_config_folder()
    return None if folder is None else _registry(folder)


def _of_system(options: HelperOptions, hosts: tuple[str, ...]) -> Source | None:  # noqa: ARG001  # as above
    return _registry(site_config_folder())


def _registry(folder: str) -> Source | None:
    """The registry below ``folder``; None if there is none, and then the module that reads it is not loaded."""
    if not os.path.lexists(f"{folder}/{REGISTRY_FOLDER}"):
        return None
    from git_credential_bbjwt.installations.registry import read_registry

    return read_registry(folder)


# Where installations come from, in the order in which they are asked. Each is read on every call, for every host,
# before any check, without a request and without an exception: a source that cannot be read has a `problem`. A command
# or a broker is only named here; it is asked when a token is needed.
_ORDER: "tuple[Callable[[HelperOptions, tuple[str, ...]], Source | None], ...]" = (
    _of_option,
    _of_option_command,
    _of_variable,
    _of_variable_command,
    _of_systemd,
    _of_broker,
    _of_user,
    _of_system,
)

#: Variables that name an installation. The first ones may hold a path, which `exec` makes absolute.
PATH_VARIABLES = ("BBJWT_INSTALLATION", "BBJWT_JWT_FILE")
VARIABLES = (*PATH_VARIABLES, "BBJWT_JWT", "BBJWT_INSTALLATION_COMMAND", "BBJWT_BROKER")


def read_sources(options: HelperOptions) -> Sources:
    """Read all sources, in their order."""
    hosts = options.hosts or (CLOUD_HOST,)
    found = [read(options, hosts) for read in _ORDER]
    return Sources([source for source in found if source is not None], _jwt_in_variable(), hosts)
