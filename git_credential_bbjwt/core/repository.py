"""The repository that a host and a path name exactly.

Sources: "Repositories" of Bitbucket's REST API (a part may be a slug or a UUID in braces), the Git LFS API
specification (``info/lfs``), gitprotocol-http(5) (``info/refs``), git-annex' special remotes over http (``config``,
``annex/objects``), gitcredentials(7) (host and path). Wikis (``/wiki``) are gone since August 2026; their path is still
read as the repository's.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from git_credential_bbjwt.core.failures import NotARepositoryError

#: Bitbucket Cloud's host.
CLOUD_HOST = "bitbucket.org"

_HEX = frozenset("0123456789abcdef")
_SLUG = frozenset("abcdefghijklmnopqrstuvwxyz0123456789._-")
_UUID_GROUPS = (8, 4, 4, 4, 12)

# Real slugs are much shorter. The limit keeps URLs, file names and messages short.
_LONGEST_NAME = 128


class Repository:
    """One repository of one host.

    ``host`` is lower case, with a port unless it is 443. ``workspace`` and ``name`` are lower case, each a slug or a
    UUID in braces.
    """

    __slots__ = ("host", "name", "workspace")

    def __init__(self, host: str, workspace: str, name: str) -> None:
        self.host = host
        self.workspace = workspace
        self.name = name

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Repository) and self.url == other.url

    @property
    def full_name(self) -> str:
        """``workspace/slug``, as Bitbucket calls it."""
        return f"{self.workspace}/{self.name}"

    @property
    def url(self) -> str:
        """Its clone URL."""
        return f"https://{self.host}/{self.full_name}"

    @property
    def uuid(self) -> str | None:
        """The repository's UUID in braces if the URL has it."""
        return self.name if self.name.startswith("{") else None


def normal_host(host: str) -> str:
    """Return ``host`` in lower case and without port 443, the port of https. Nothing else is changed."""
    # Only ASCII letters change, so that no other letter becomes an ASCII letter.
    host = host.encode("utf-8", "surrogateescape").lower().decode("utf-8", "surrogateescape")
    name = host.removesuffix(":443")
    # `HOST:8443:443` is not a host, and must not become one.
    return host if ":" in name.rpartition("]")[2] else name


def is_uuid(text: str) -> bool:
    """Return whether ``text`` is a UUID in braces, lower case."""
    if len(text) != 38 or text[0] != "{" or text[-1] != "}":
        return False
    groups = text[1:-1].split("-")
    return tuple(map(len, groups)) == _UUID_GROUPS and _HEX.issuperset("".join(groups))


def is_name(text: str) -> bool:
    """Return whether ``text`` can be a workspace or a repository slug, lower case."""
    return len(text) <= _LONGEST_NAME and _SLUG.issuperset(text) and text.strip(".") != ""


def _not_a_repository(reason: str) -> "NotARepositoryError":
    from git_credential_bbjwt.core.failures import NotARepositoryError

    return NotARepositoryError(reason)


def parse_path(host: str, path: bytes) -> Repository:
    """Return the repository that ``path`` names on ``host`` (already in the form of `normal_host`).

    Raises NotARepositoryError with the reason.
    """
    path = path.removeprefix(b"/").removesuffix(b"/")
    segments = [_decoded(segment) for segment in path.split(b"/")]
    if ".." in segments or "." in segments:
        raise _not_a_repository("a path with dot segments is not a repository's")
    if len(segments) < 2:
        raise _not_a_repository("the path is not a repository's: it needs a workspace and a repository")
    workspace, name = segments[0].lower(), segments[1].lower().removesuffix(".git")
    for part in (workspace, name):
        if not (is_uuid(part) or is_name(part)):
            raise _not_a_repository(
                "the path is not a repository's: a workspace or repository name in it has invalid characters"
            )
    if not _is_inside(segments[2:]):
        raise _not_a_repository("the path is not a repository's: it continues after the repository name")
    return Repository(host, workspace, name)


def _is_inside(rest: "list[str]") -> bool:
    """Return whether clients request ``rest`` below a repository: Git LFS, git, or git-annex (also ``config``)."""
    if rest[:1] == ["wiki"]:
        rest = rest[1:]
    return not rest or rest[:2] == ["info", "lfs"] or rest[0] == "annex" or rest in (["info", "refs"], ["config"])


def _decoded(segment: bytes) -> str:
    """Percent-decode one segment. Raises NotARepositoryError for characters that change a path or a terminal."""
    pieces = segment.split(b"%")
    decoded = bytearray(pieces[0])
    for piece in pieces[1:]:
        code = piece[:2].decode("ascii", "replace").lower()
        if len(code) != 2 or not _HEX.issuperset(code):
            raise _not_a_repository("the path is not a repository's: its percent-encoding is broken")
        decoded.append(int(code, 16))
        decoded += piece[2:]
    if any(byte <= 0x20 or byte >= 0x7F or byte in b"/\\" for byte in decoded):
        raise _not_a_repository("the path is not a repository's: it has a character that no repository name has")
    return decoded.decode("ascii")
