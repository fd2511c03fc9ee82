"""Commands and brokers: sources that are asked only when a token is needed."""

from git_credential_bbjwt.core.repository import Repository
from git_credential_bbjwt.core.source import Source


class OnDemandSource(Source):
    """A source that is asked about repositories of ``hosts`` when a token is needed.

    ``how`` is its command line or address.
    """

    #: Its name in ``list --json``.
    kind = ""

    def __init__(self, where: str, how: str, hosts: tuple[str, ...]) -> None:
        super().__init__(where)
        self.how = how
        self.hosts = hosts

    def may_name(self, host: str) -> bool:
        return host in self.hosts

    def stamp(self, repository: Repository) -> str:  # noqa: ARG002  # the same for all
        return self.kind + ascii(self.how)


class CommandSource(OnDemandSource):
    """A command that prints a payload."""

    kind = "command"


class BrokerSource(OnDemandSource):
    """A broker that returns tokens. ``id_token_command`` and ``id_token_file`` are used only for an https broker."""

    kind = "broker"

    def __init__(
        self,
        where: str,
        how: str,
        hosts: tuple[str, ...],
        id_token_command: str | None,
        id_token_file: str | None,
    ) -> None:
        super().__init__(where, how, hosts)
        self.id_token_command = id_token_command
        self.id_token_file = id_token_file
