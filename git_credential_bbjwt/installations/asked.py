"""Sources that are asked when a token is needed, and not read before: a command, a broker."""

from git_credential_bbjwt.core.repository import Repository
from git_credential_bbjwt.installations.source import Source


class Asked(Source):
    """A source that is asked about repositories of ``hosts``; ``how`` is its command line or address."""

    #: The name that ``list --json`` has for it.
    kind = ""

    def __init__(self, where: str, how: str, hosts: tuple[str, ...]) -> None:
        super().__init__(where)
        self.how = how
        self.hosts = hosts

    def may_name(self, host: str) -> bool:
        return host in self.hosts

    def stamp(self, repository: Repository) -> str:  # noqa: ARG002  # whom it is about is not known here
        return self.kind + ascii(self.how)


class Command(Asked):
    """A command that prints a payload."""

    kind = "command"


class Broker(Asked):
    """A broker that gives tokens. ``id_token_command`` and ``id_token_file`` are for a broker by https."""

    kind = "broker"

    def __init__(
        self,
        where: str,
        how: str,
        hosts: tuple[str, ...],
        id_token_command: str | None = None,
        id_token_file: str | None = None,
    ) -> None:
        super().__init__(where, how, hosts)
        self.id_token_command = id_token_command
        self.id_token_file = id_token_file
