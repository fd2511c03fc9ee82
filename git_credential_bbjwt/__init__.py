"""git-credential-bbjwt, and what all of it stands on: what a person is told, and which repository is meant.

Errors, warnings and notes go to standard error, the rest into a trace, a line each. None of it ever holds a secret.

A host and a path name a `Repository` exactly, or not at all. Sources: "Repositories" of Bitbucket's REST API (a part
may be a slug or a UUID in braces), the Git LFS API specification (``info/lfs``), gitcredentials(7) (host and path).
Wikis (``/wiki``) are gone since August 2026; their path is the repository's all the same.
"""

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from git_credential_bbjwt.failures import NotARepositoryError

__version__ = "1.1.0"

PREFIX = "git-credential-bbjwt: "
REDACTED = "[redacted]"

# A value shorter than this is no secret worth hiding, and hiding it would blank out half of every line.
_SHORTEST_SECRET = 6

_secrets: set[str] = set()
_warned: dict[str, object] = {}
_verbose = False


def be_verbose() -> None:
    """Send the trace to standard error as ``--verbose`` asks."""
    global _verbose
    _verbose = True


def hide(secret: str) -> None:
    """From now on, replace ``secret`` wherever it would be shown."""
    if len(secret) >= _SHORTEST_SECRET:
        _secrets.add(secret)


def redacted(text: str) -> str:
    """Return ``text`` without secrets. To be asked before a text is cut: a secret that is cut is no longer known."""
    # The longest first, so that a secret within another one does not leave the other's rest visible.
    for secret in sorted(_secrets, key=len, reverse=True):
        text = text.replace(secret, REDACTED)
    return text


def one_line(text: str) -> str:
    """Return ``text`` without secrets, and with every character that could move a terminal's cursor escaped."""
    text = redacted(text)
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def _write(fd: int, line: str) -> None:
    try:
        os.write(fd, one_line(line).encode("utf-8", "backslashreplace") + b"\n")
    except OSError:
        # Nobody reads standard error, or the disk of the trace file is full: no reason to fail git.
        pass


def error(what: str, hint: str = "") -> None:
    """Say what went wrong, then what to do next."""
    _write(2, f"{PREFIX}error: {what}")
    if hint:
        _write(2, f"hint: {hint}")


def warning(what: str) -> None:
    """Say, once, what a person should know although the call goes on."""
    mine = object()
    if _warned.setdefault(what, mine) is mine:  # One step, for two threads may come with the same.
        _write(2, f"{PREFIX}warning: {what}")


def note(what: str) -> None:
    """Say something that is neither an error nor a result."""
    _write(2, PREFIX + what)


def tracing() -> bool:
    """Whether anybody wants `trace` lines."""
    return _verbose or os.environ.get("BBJWT_TRACE", "") not in ("", "0", "false")


def trace(what: str) -> None:
    """Record a decision or a request, where ``--verbose`` or ``BBJWT_TRACE`` asks for it.

    ``BBJWT_TRACE=1`` means standard error; an absolute path is appended to, and created with mode 0600.
    """
    target = os.environ.get("BBJWT_TRACE", "")
    if _verbose or target in ("1", "2", "true"):
        _write(2, f"{PREFIX}trace: {what}")
    if os.path.isabs(target):
        from git_credential_bbjwt.system import open_to_append

        try:
            fd = open_to_append(target)
        except OSError:
            return
        try:
            from time import strftime

            _write(fd, f"{strftime('%Y-%m-%dT%H:%M:%S%z')} [{os.getpid()}] {what}")
        finally:
            os.close(fd)


_HEX = frozenset("0123456789abcdef")
_SLUG = frozenset("abcdefghijklmnopqrstuvwxyz0123456789._-")
_UUID_GROUPS = (8, 4, 4, 4, 12)

# No slug or workspace comes near this; a bound keeps URLs, file names and messages short.
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
        if not isinstance(other, Repository):
            return NotImplemented
        return (self.host, self.workspace, self.name) == (other.host, other.workspace, other.name)

    def __hash__(self) -> int:
        return hash((self.host, self.workspace, self.name))

    @property
    def full_name(self) -> str:
        """``workspace/slug``, as Bitbucket calls it."""
        return f"{self.workspace}/{self.name}"

    @property
    def uuid(self) -> str | None:
        """The repository's UUID in braces where the URL named it by that."""
        return self.name if self.name.startswith("{") else None


def normal_host(host: str) -> str:
    """Return ``host`` in lower case and without the port 443 that https means anyway. Nothing else is forgiven."""
    # Only ASCII letters change: a letter that merely looks like one must not become it.
    host = host.encode("utf-8", "surrogateescape").lower().decode("utf-8", "surrogateescape")
    name = host.removesuffix(":443")
    # `HOST:8443:443` is no host, and must not become one.
    return host if ":" in name.rpartition("]")[2] else name


def is_uuid(text: str) -> bool:
    """Whether ``text`` is a UUID in braces, lower case."""
    if len(text) != 38 or text[0] != "{" or text[-1] != "}":
        return False
    groups = text[1:-1].split("-")
    return tuple(map(len, groups)) == _UUID_GROUPS and _HEX.issuperset("".join(groups))


def is_name(text: str) -> bool:
    """Whether ``text`` can be a workspace or a repository slug, lower case."""
    return len(text) <= _LONGEST_NAME and _SLUG.issuperset(text) and text.strip(".") != ""


def _not_a_repository(reason: str) -> "NotARepositoryError":
    from git_credential_bbjwt.failures import NotARepositoryError

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
    rest = segments[2:]
    if rest[:1] == ["wiki"]:
        rest = rest[1:]
    if rest and rest[:2] != ["info", "lfs"]:
        raise _not_a_repository("the path is not a repository's: it goes on after the repository name")
    return Repository(host, workspace, name)


def _decoded(segment: bytes) -> str:
    """Percent-decode one segment; what would change the path's structure or a terminal is refused."""
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


def parse_url(url: str) -> Repository:
    """Return the repository of a clone URL as people write it: https, or one of Bitbucket's two ssh forms.

    Raises NotARepositoryError with the reason.
    """
    if url.startswith("git@") and "/" not in url.partition(":")[0]:
        host, _, path = url.removeprefix("git@").partition(":")
        if "@" in host:
            raise _not_a_repository("this ssh URL is not one of Bitbucket's: its user is not git")
    else:
        scheme, separator, rest = url.partition("://")
        authority, _, path = rest.partition("/")
        user, _, host = authority.rpartition("@")
        if not separator or scheme.lower() not in ("https", "ssh"):
            raise _not_a_repository(
                "this is not an https URL of a repository, such as https://bitbucket.org/acme/widgets"
            )
        if scheme.lower() == "ssh" and user != "git":
            raise _not_a_repository("this ssh URL is not one of Bitbucket's: its user is not git")
    if not host:
        raise _not_a_repository("the URL does not name a host")
    return parse_path(normal_host(host), path.encode("utf-8", "surrogateescape"))
