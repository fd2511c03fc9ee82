"""The catalogue of all installations: which one serves a repository, in the order of their sources."""

from collections.abc import Iterable, Iterator

from git_credential_bbjwt.core.failures import InstallationError
from git_credential_bbjwt.core.output import warning
from git_credential_bbjwt.core.repository import Repository
from git_credential_bbjwt.installations.asked import Asked
from git_credential_bbjwt.installations.installation import (
    CLOUD_API_URL,
    CLOUD_BASE_URL,
    Installation,
    SecretPlace,
)
from git_credential_bbjwt.installations.levels import Given, Level, ToBeAsked, level_of, unreadable
from git_credential_bbjwt.installations.registry import Registry
from git_credential_bbjwt.installations.source import Payload, Source, Text
from git_credential_bbjwt.installations.sources import Sources


def _names(one: Installation, workspace: str) -> bool:
    return not one.workspaces or workspace in (*one.workspaces, one.workspace_uuid)


class Catalogue:
    """All installations of `Sources`, in their order of precedence.

    A source that cannot be read or parsed is an error only for requests that it might have answered (for Bitbucket
    Cloud, and for a host that its text names), and only if no source before it answers.
    """

    def __init__(self, sources: Sources) -> None:
        every = [*sources.sources, *([sources.jwt] if sources.jwt else [])]
        self._exposed = [one.where for one in every if one.exposed and (isinstance(one, Payload) or one is sources.jwt)]
        self._certain = sources.hosts
        self._levels = [level_of(source) for source in sources.sources]
        if sources.jwt is not None:
            self._levels = list(_with_jwt(self._levels, sources.jwt))

    def __iter__(self) -> Iterator[Installation]:
        for level in self._levels:
            try:
                yield from level
            except InstallationError as problem:
                level.problem = problem

    def naming(self, workspace: str) -> list[Installation]:
        """Return all that may serve ``workspace``, a slug or a UUID, whether they would be asked or not."""
        found: list[Installation] = []
        for level in self._levels:
            try:
                found += [one for one in level.of_workspace(workspace) if _names(one, workspace)]
            except InstallationError as problem:
                level.problem = problem
        return found

    def to_ask(self) -> list[Asked]:
        """Return the commands and brokers."""
        return [level.asked for level in self._levels if isinstance(level, ToBeAsked)]

    def problems(self) -> list[InstallationError]:
        """Return the problems of the sources that could not be used."""
        return [level.problem for level in self._levels if level.problem is not None]

    def registered_hosts(self) -> list[str]:
        """Return the hosts of registered installations."""
        levels = [level for level in self._levels if isinstance(level.source, Registry)]
        return list(dict.fromkeys(host for level in levels for host in level.hosts()))

    def hosts(self) -> list[str]:
        """Return the hosts of installations, commands and brokers."""
        named = [host for level in self._levels for host in level.hosts()]
        return list(dict.fromkeys(named + [host for asked in self.to_ask() for host in asked.hosts]))

    def names_host(self, host: str) -> bool:
        """Return whether a source serves ``host``, or might if it could be used."""
        return any(level.names(host) or (level.problem is not None and host in self._certain) for level in self._levels)

    def unreadable(self) -> list[InstallationError]:
        """Return the problems of the sources of which nothing is known, not even their hosts."""
        return [unreadable(level.source) for level in self._levels if level.source.problem is not None]

    def answering(self, repository: Repository, app: str) -> "list[Installation | Asked]":
        """Return who can give a token for ``repository``, in the order in which they are asked.

        The first that does not say "not mine" decides. An OAuth consumer that is marked ``after_connect`` is the last
        one, for "not mine" of all before it, and for the end of Connect. The list is empty if no source names the
        workspace. Raises InstallationError if a source that comes first is broken, or if several apps could serve and
        ``app`` chooses none.
        """
        asked: list[Installation | Asked] = []
        found: Installation | None = None
        successors: list[Installation] = []
        for level in self._levels:
            if isinstance(level, ToBeAsked):
                if found is None and level.names(repository.host):
                    asked.append(level.asked)
                continue
            try:
                there = level.of_workspace(repository.workspace, repository.host)
            except InstallationError:
                if asked or found is not None:
                    continue  # A source that comes before it can answer.
                raise
            serving = [one for one in there if one.serves(repository)]
            if found is None:
                found = chosen(serving, repository.workspace, app)
            successors += [one for one in serving if one.after_connect]
        if found is not None and found.is_consumer and not found.after_connect:
            return [*asked, found]
        if found is None and app and not asked:
            return []
        before = [*asked, found] if found is not None else asked
        return [*before, *[one for one in successors[:1] if one != found]]

    def is_certain(self, answering: "list[Installation | Asked]", repository: Repository) -> bool:
        """Return whether the last of those that `answering` found certainly serves ``repository``."""
        last = answering[-1]
        return not isinstance(last, Installation) or last.is_surely_for(repository)

    def choose_for_workspace(self, workspace: str, app: str) -> Installation | None:
        """Return the installation for a workspace's slug; if several hosts have it, that of the first host."""
        successor = None
        for level in self._levels:
            serving = [
                one for one in level.of_workspace(workspace) if not one.workspaces or workspace in one.workspaces
            ]
            serving = [one for one in serving if one.host == serving[0].host]
            found = chosen(serving, workspace, app)
            if found is not None:
                return found
            if successor is None and not app:
                successor = next((one for one in serving if one.after_connect), None)
        return successor

    def warn_of_exposed(self) -> None:
        """Warn of each file with a secret or a JWT that others can read, also if it is only handed on."""
        for where in self._exposed:
            warn_of_exposed(where)


def chosen(serving: list[Installation], workspace: str, app: str) -> Installation | None:
    """Return which of one source's installations for ``workspace``, the newest first, is asked for tokens.

    That is the Connect app, or without any the newest OAuth consumer; ``app`` is the key of the one to use, or empty. A
    consumer marked ``after_connect`` is chosen by its key alone. Raises InstallationError for several Connect apps.
    """
    apps = [one for one in serving if not one.is_consumer and app in ("", one.app_key)]
    if len(apps) > 1:
        keys = ", ".join(sorted(one.app_key for one in apps))
        raise InstallationError(
            f"several apps are registered for the workspace {workspace}: {keys}",
            "choose one: git-credential-bbjwt --app KEY configure",
        )
    consumers = [one for one in serving if one.is_consumer]
    wanted = [one for one in consumers if (one.app_key == app if app else not one.after_connect)]
    return next(iter(apps + wanted), None)


def with_replacements(installations: Iterable[Installation]) -> Iterator[tuple[Installation, Installation]]:
    """Yield each installation with the one that is used in its place: itself, or a consumer that was registered later.

    ``installations`` has the newest of each source first.
    """
    newest: dict[tuple[object, ...], Installation] = {}
    for one in installations:
        key = (one.where, one.host, one.workspaces, one.after_connect)
        yield one, newest.setdefault(key, one) if one.is_consumer else one


def warn_of_exposed(where: str) -> None:
    """Warn of a file with a secret or a JWT that others can read."""
    warning(f"others on this machine can read {where}: run chmod 600 on it, or mount it with mode 0400")


def _with_jwt(levels: list[Level], jwt: Text) -> Iterator[Level]:
    """Put the JWT in the place of each injected installation's secret; without any, it is for Bitbucket Cloud."""
    injected = [level for level in levels if isinstance(level.source, Payload) and (level.problem or list(level))]
    if not injected:
        cloud = Installation("", "", CLOUD_BASE_URL, CLOUD_API_URL, (), "", SecretPlace.ELSEWHERE, "", jwt.where)
        injected = [Given(Source(jwt.where), lambda: [cloud])]
    consumer = next((one for level in injected for one in level if one.is_consumer), None)
    for level in injected:
        yield level if level.problem is not None else _with_token(level, jwt, consumer)


def _with_token(level: Level, jwt: Text, consumer: Installation | None) -> Level:
    def given() -> list[Installation]:
        if consumer is not None:
            raise InstallationError(
                f"{jwt.where} and the OAuth consumer in {consumer.where} exclude each other: a JWT is a Connect app's",
                "leave out one of them",
            )
        if jwt.problem is not None:
            raise InstallationError(f"no JWT in {jwt.where}: {jwt.problem}", jwt.remedy)
        text = (jwt.data or b"").decode("utf-8", "replace").strip().removeprefix("\ufeff").strip()
        if not text or not text.isascii() or not text.isprintable():
            raise InstallationError(
                f"{jwt.where} does not contain a JWT", "git-credential-bbjwt jwt WORKSPACE prints one"
            )
        return [
            one._replace(
                jwt=text, shared_secret="", secret_place=SecretPlace.ELSEWHERE, where=jwt.where, is_exposed=jwt.exposed
            )
            for one in level
        ]

    return Given(_Hosts(jwt.where, level.hosts()), given)


class _Hosts(Source):
    """A source with known hosts, whatever its problem is."""

    def __init__(self, where: str, hosts: list[str]) -> None:
        super().__init__(where)
        self._hosts = hosts

    def concerns(self, host: str) -> bool:
        return host in self._hosts
