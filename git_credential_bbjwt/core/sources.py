"""The sources of installations on this machine, in the order in which they are asked."""

import os

from git_credential_bbjwt.core.files import site_config_folder, user_config_folder
from git_credential_bbjwt.core.options import HelperOptions
from git_credential_bbjwt.core.repository import CLOUD_HOST, Repository
from git_credential_bbjwt.core.source import REGISTRY_FOLDER, Payload, Registry, Source, Text, unpacked

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

# Bytes. A longer value is not a path (PATH_MAX).
_LONGEST_PATH = 4096


class Sources:
    """All sources on this machine, in the order in which they are asked.

    ``jwt`` is a JWT signed elsewhere; ``every`` includes it. ``hosts`` are those of ``--host``, by default Bitbucket
    Cloud's; they are known even if no source names them.
    """

    def __init__(self, sources: list[Source], jwt: Text | None, hosts: tuple[str, ...]) -> None:
        self.sources = sources
        self.jwt = jwt
        self.every = sources if jwt is None else [*sources, jwt]
        self.hosts = hosts

    def is_empty(self) -> bool:
        """Return whether the machine has no source of installations at all."""
        return not any(source.is_there() for source in self.every)

    def may_name(self, host: str) -> bool:
        """Return False if certainly no source serves ``host``; True is only a reason to look closer."""
        # If a payload is broken, that is an error for a host that it might have served.
        if host in self.hosts and any(isinstance(source, Text) and source.is_there() for source in self.every):
            return True
        return any(source.may_name(host) for source in self.sources)

    def stamp(self, repository: Repository) -> str:
        """Return a text that changes when the sources change what they say about ``repository``."""
        return ";".join([source.stamp(repository) for source in self.every])

    def stamp_to_keep(self, repository: Repository) -> str:
        """Return the stamp for a record; empty, which no later stamp equals, if a change could still go unnoticed."""
        return self.stamp(repository) if all(source.is_settled() for source in self.every) else ""


def _payload_in_variable(value: str) -> Source:
    """Return the payload in a variable or in the file it names. The value may be a secret, so it is never shown.

    White space around it is ignored, because values of CI variables often end with a line break.
    """
    value = value.strip()
    where = "the variable BBJWT_INSTALLATION"
    if len(value) < _LONGEST_PATH and os.path.lexists(value):
        return Payload.in_file(value)
    payload = unpacked(value.encode("utf-8", "surrogateescape"))
    if payload is None:
        from git_credential_bbjwt.core.remedies import remedy_for_value

        source = Payload(where)
        source.problem, source.remedy = remedy_for_value(value)
        return source
    return Payload(where, payload)


def _jwt_in_variable() -> Text | None:
    environ = os.environ
    if environ.get("BBJWT_JWT"):
        data = environ["BBJWT_JWT"].encode("utf-8", "surrogateescape")
        return Text("the variable BBJWT_JWT", data)
    if environ.get("BBJWT_JWT_FILE"):
        return Text.in_file(environ["BBJWT_JWT_FILE"].strip(), named_by="BBJWT_JWT_FILE")
    return None


def _command(where: str, command: str, hosts: tuple[str, ...]) -> Source:
    from git_credential_bbjwt.core.on_demand import CommandSource

    return CommandSource(where, command, hosts)


def _registry(folder: str | None) -> "Iterator[Source]":
    """Yield the registry below ``folder``, if there is one."""
    if folder is not None and os.path.lexists(f"{folder}/{REGISTRY_FOLDER}"):
        yield Registry(f"{folder}/{REGISTRY_FOLDER}")


def _in_order(options: HelperOptions, hosts: tuple[str, ...]) -> "Iterator[Source]":
    """Yield the sources in the order in which they are asked.

    Every call reads all sources, for every host and before any check. Reading makes no request and raises no exception:
    a source that cannot be read has a ``problem``. Commands and brokers are only named here. They are asked when a
    token is needed.
    """
    environ = os.environ
    if options.installation is not None:
        yield Payload.in_file(options.installation, named_by="--installation")
    if options.installation_command is not None:
        yield _command("the command of --installation-command", options.installation_command, hosts)
    if environ.get("BBJWT_INSTALLATION"):
        yield _payload_in_variable(environ["BBJWT_INSTALLATION"])
    if environ.get("BBJWT_INSTALLATION_COMMAND"):
        yield _command("the command of BBJWT_INSTALLATION_COMMAND", environ["BBJWT_INSTALLATION_COMMAND"], hosts)
    if environ.get("CREDENTIALS_DIRECTORY"):
        yield Payload.in_file(environ["CREDENTIALS_DIRECTORY"] + "/bbjwt-installation", optional=True)
    if options.broker is not None:
        from git_credential_bbjwt.core.on_demand import BrokerSource

        yield BrokerSource("the broker", options.broker, hosts, options.id_token_command, options.id_token_file)
    yield from _registry(user_config_folder())
    yield from _registry(site_config_folder())


#: Variables that can contain a path, which `exec` makes absolute.
PATH_VARIABLES = ("BBJWT_INSTALLATION", "BBJWT_JWT_FILE")
#: All variables that name an installation.
VARIABLES = (*PATH_VARIABLES, "BBJWT_JWT", "BBJWT_INSTALLATION_COMMAND", "BBJWT_BROKER")


def read_sources(options: HelperOptions) -> Sources:
    """Read all sources, in their order."""
    hosts = options.hosts or (CLOUD_HOST,)
    return Sources(list(_in_order(options, hosts)), _jwt_in_variable(), hosts)
