"""The catalogue of all installations, in the order of their sources, and the choice among them for a repository."""

from collections.abc import Iterable, Iterator

from git_credential_bbjwt.core.failures import NEW_JWT, InstallationError
from git_credential_bbjwt.core.on_demand import OnDemandSource
from git_credential_bbjwt.core.output import warning
from git_credential_bbjwt.core.repository import Repository
from git_credential_bbjwt.core.source import Payload, Registry, Source, Text
from git_credential_bbjwt.core.sources import Sources
from git_credential_bbjwt.installations.installation import (
    CLOUD_API_URL,
    CLOUD_BASE_URL,
    Installation,
    SecretPlace,
)
from git_credential_bbjwt.installations.levels import Level, level_of, unreadable

#: An installation, or a command or broker that is asked when a token is needed.
Candidate = Installation | OnDemandSource


class Catalogue:
    """All installations of `Sources`, in their order of precedence.

    A source that cannot be read or parsed causes an error only if no earlier source answers and the source might have
    answered itself. It might have, if the request is for Bitbucket Cloud or for a host that the source's text names.
    """

    def __init__(self, sources: Sources) -> None:
        self._exposed = [source.where for source in sources.every if source.exposed]
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
        """Return all installations that may serve ``workspace`` (a slug or a UUID), even those that are never asked."""
        found: list[Installation] = []
        for level in self._levels:
            try:
                found += [one for one in level.of_workspace(workspace) if one.names(workspace) or not one.workspaces]
            except InstallationError as problem:
                level.problem = problem
        return found

    def to_ask(self) -> list[OnDemandSource]:
        """Return the commands and brokers."""
        return [level.source for level in self._levels if isinstance(level.source, OnDemandSource)]

    def problems(self) -> list[InstallationError]:
        """Return the problems of the sources that could not be used."""
        return [level.problem for level in self._levels if level.problem is not None]

    def registered_hosts(self) -> list[str]:
        """Return the hosts of registered installations."""
        levels = [level for level in self._levels if isinstance(level.source, Registry)]
        return list(dict.fromkeys(host for level in levels for host in level.hosts()))

    def hosts(self) -> list[str]:
        """Return the hosts of installations, commands and brokers."""
        return list(dict.fromkeys(host for level in self._levels for host in level.hosts()))

    def names_host(self, host: str) -> bool:
        """Return whether a source serves ``host``, or might if it could be used."""
        return any(level.names(host) or (level.problem is not None and host in self._certain) for level in self._levels)

    def unreadable(self) -> list[InstallationError]:
        """Return the problems of the sources that could not be read, so that even their hosts are unknown."""
        return [unreadable(level.source) for level in self._levels if level.source.problem is not None]

    def candidates(self, repository: Repository, app: str) -> list[Candidate]:
        """Return the installations, commands and brokers that can provide a token for ``repository``, in order.

        The first of them that does not decline the repository decides. An OAuth consumer that is marked
        ``after_connect`` comes last: it is used if all others decline, or if Connect has ended. The list is empty if no
        source names the workspace. Raises InstallationError if an earlier source is broken, if several apps could
        serve and ``app`` chooses none, or if no installation for the workspace has the key ``app``.
        """
        asked: list[Candidate] = []
        found: Installation | None = None
        naming: list[Installation] = []
        successors: list[Installation] = []
        for level in self._levels:
            if isinstance(level.source, OnDemandSource):
                if found is None and level.names(repository.host):
                    asked.append(level.source)
                continue
            try:
                there = level.of_workspace(repository.workspace, repository.host)
            except InstallationError:
                if asked or found is not None:
                    continue  # An earlier source can answer.
                raise
            serving = [one for one in there if one.serves(repository)]
            if found is None:
                found = chosen(serving, repository.workspace, app)
            naming += [one for one in serving if one.names(repository.workspace)]
            successors += [one for one in serving if one.after_connect]
        if found is not None and found.is_consumer and not found.after_connect:
            return [*asked, found]
        if found is None and app and not asked:
            if naming:
                keys = ", ".join(sorted({one.app_key for one in naming}))
                raise InstallationError(
                    f"no installation for the workspace {repository.workspace} has the key of --app; it has {keys}",
                    "correct --app in the command or on git's credential.helper line, or leave it out",
                )
            return []
        before = [*asked, found] if found is not None else asked
        return [*before, *[one for one in successors[:1] if one != found]]

    def is_certain(self, candidates: list[Candidate], repository: Repository) -> bool:
        """Return whether the last item of `candidates` certainly serves ``repository``."""
        last = candidates[-1]
        return not isinstance(last, Installation) or last.names(repository.workspace)

    def choose_for_workspace(self, workspace: str, app: str) -> Installation | None:
        """Return the installation for a workspace's slug; if several hosts have the slug, the first host's."""
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
        """Warn about each file with a secret or a JWT that others can read, even if it is only passed on."""
        for where in self._exposed:
            warn_of_exposed(where)


def chosen(serving: list[Installation], workspace: str, app: str) -> Installation | None:
    """Return the installation to ask for tokens among one source's installations for ``workspace``, newest first.

    That is the Connect app, or if there is none, the newest OAuth consumer. If ``app`` is not empty, only the
    installation with that key is returned. A consumer marked ``after_connect`` is returned only by its key. Raises
    InstallationError if several Connect apps are left.
    """
    apps = [one for one in serving if not one.is_consumer and app in ("", one.app_key)]
    if len(apps) > 1:
        keys = ", ".join(sorted(one.app_key for one in apps))
        raise InstallationError(
            f"several apps are registered for the workspace {workspace}: {keys}",
            "choose one by --app KEY; for git: git-credential-bbjwt --app KEY configure",
        )
    consumers = [one for one in serving if one.is_consumer]
    wanted = [one for one in consumers if (one.app_key == app if app else not one.after_connect)]
    return next(iter(apps + wanted), None)


def with_replacements(installations: Iterable[Installation]) -> Iterator[tuple[Installation, Installation]]:
    """Yield each installation with the installation that is used: the same, or a consumer that was registered later.

    ``installations`` has the newest of each source first.
    """
    newest: dict[tuple[object, ...], Installation] = {}
    for one in installations:
        key = (one.where, one.host, one.workspaces, one.after_connect)
        yield one, newest.setdefault(key, one) if one.is_consumer else one


def warn_of_exposed(where: str) -> None:
    """Warn about a file with a secret or a JWT that others can read."""
    warning(f"others on this machine can read {where}: run chmod 600 on it, or mount it with mode 0400")


def _with_jwt(levels: list[Level], jwt: Text) -> Iterator[Level]:
    """Use the JWT in place of each injected installation's secret; if none is injected, for Bitbucket Cloud."""
    injected = [level for level in levels if isinstance(level.source, Payload) and (level.problem or list(level))]
    if not injected:
        cloud = Installation("", CLOUD_BASE_URL, CLOUD_API_URL, jwt.where, secret_place=SecretPlace.ELSEWHERE)
        injected = [Level(Source(jwt.where), lambda: [cloud])]
    consumer = next((one for level in injected for one in level if one.is_consumer), None)
    for level in injected:
        yield level if level.problem is not None else _with_token(level, jwt, consumer)


def _with_token(level: Level, jwt: Text, consumer: Installation | None) -> Level:
    def given() -> list[Installation]:
        if consumer is not None:
            raise InstallationError(
                f"cannot use {jwt.where} with the OAuth consumer in {consumer.where}: a JWT needs a Connect app",
                "use only one of them",
            )
        if jwt.problem is not None:
            raise InstallationError(f"no JWT in {jwt.where}: {jwt.problem}", jwt.remedy)
        text = (jwt.data or b"").decode("utf-8", "replace").strip().removeprefix("\ufeff").strip()
        if not text or not text.isascii() or not text.isprintable():
            raise InstallationError(f"{jwt.where} does not contain a JWT", NEW_JWT)
        return [
            one._replace(
                jwt=text, shared_secret="", secret_place=SecretPlace.ELSEWHERE, where=jwt.where, is_exposed=jwt.exposed
            )
            for one in level
        ]

    return Level(Source(jwt.where), given, hosts=level.hosts())
