"""Lines for people: errors, warnings and notes on standard error, and the trace. They never contain a secret."""

import os
import sys

from git_credential_bbjwt.core.failures import CredentialError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

PREFIX = "git-credential-bbjwt: "
REDACTED = "[redacted]"

# A shorter value is not hidden, because that would blank out half of every line.
_SHORTEST_SECRET = 6

_RED, _YELLOW, _PLAIN = "\033[31m", "\033[33m", "\033[0m"

# Limit of the hidden values, and of the remembered warnings, because a broker's process runs for a long time.
_MOST_REMEMBERED = 1_000

# Values of BBJWT_TRACE beside a path.
_OFF, _ON = ("", "0", "false"), ("1", "2", "true")

_secrets: dict[str, object] = {}
_warned: dict[str, object] = {}
_verbose = False
_sink: "Callable[[str, str], None] | None" = None


def divert(sink: "Callable[[str, str], None]") -> None:
    """From now on, pass each line for standard error to ``sink``, because a broker's client reads standard error.

    The arguments are the line's mark, empty for a note, and its text. A note may have any words of another program.
    """
    global _sink
    _sink = sink


def be_verbose() -> None:
    """Send the trace to standard error as ``--verbose`` asks."""
    global _verbose
    _verbose = True


def hide(secret: str) -> None:
    """From now on, redact ``secret`` wherever it would be shown. If there are too many secrets, forget the oldest."""
    if len(secret) >= _SHORTEST_SECRET:
        _secrets.pop(secret, None)
        _secrets[secret] = None
        _make_room(_secrets)


def _make_room(remembered: "dict[str, object]") -> None:
    """Forget the oldest values if there are too many."""
    while len(remembered) > _MOST_REMEMBERED:
        remembered.pop(next(iter(list(remembered))), None)


def hidden_values() -> list[str]:
    """Return the values that are hidden, the longest first."""
    return sorted(_secrets, key=len, reverse=True)


def redacted(text: str) -> str:
    """Return ``text`` without the hidden values and without JWTs.

    Redact a text before you cut it, because a part of a secret is not recognised. The text of a server or of another
    program needs more: `server_text.safe_text`.
    """
    # The longest first, or a secret within another one would leave the rest of the other visible.
    for secret in hidden_values():
        text = text.replace(secret, REDACTED)
    if "eyJ" not in text:
        return text
    import re  # Slow to load, and seldom needed.

    # Every JWT begins with base64 of the JSON text {". A shorter run of characters is not a JWT.
    return re.sub(r"eyJ[\w.=-]{17,}", REDACTED, text)


def one_line(text: str) -> str:
    """Return ``text`` without secrets, and with every character that could move a terminal's cursor escaped."""
    text = redacted(text)
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def counted(number: int, noun: str) -> str:
    """Return ``number`` with ``noun`` in the singular or the plural."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def listed(names: "list[str]") -> str:
    """Return the first 20 names and the number of the others."""
    more = len(names) - 20
    return ", ".join(names[:20]) + (f" and {more} more" if more > 0 else "")


def is_coloured(fd: int) -> bool:
    """Return whether lines on ``fd`` may have colours: on a terminal, unless NO_COLOR or TERM says otherwise."""
    return os.isatty(fd) and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def _write(fd: int, line: str, *, mark: str = "", colour: str = "") -> None:
    """Write ``mark`` and ``line``; on a terminal the mark has a ``colour``."""
    if fd == 2 and _sink is not None:
        _sink(mark, one_line(line))
        return
    text = one_line(mark + line)
    if colour and is_coloured(fd):
        text = f"{colour}{mark}{_PLAIN}{text[len(mark) :]}"
    try:
        os.write(fd, text.encode("utf-8", "backslashreplace") + b"\n")
    except OSError:
        # Nobody reads standard error, or the trace file's disk is full. Git should not fail because of that.
        pass


def error(what: str, hint: str = "") -> None:
    """Print what failed, and then the next step."""
    _write(2, what, mark=f"{PREFIX}error: ", colour=_RED)
    if hint:
        _write(2, pasteable(hint), mark="hint: ", colour=_YELLOW)


def pasteable(hint: str) -> str:
    """Return ``hint`` with the path of the running command if a shell would not find the command by its name."""
    program = sys.argv[0]
    name = os.path.basename(program)
    if _sink is not None or f"{name} " not in hint or f"{name}: " != PREFIX or not os.path.isabs(program):
        return hint
    if any(os.access(f"{folder}/{name}", os.X_OK) for folder in os.environ.get("PATH", "").split(os.pathsep)):
        return hint
    from shlex import quote

    return f" {hint}".replace(f" {name} ", f" {quote(program)} ")[1:]


def warning(what: str) -> None:
    """Print a warning, once. The call continues."""
    mine = object()
    if _warned.setdefault(what, mine) is mine:  # In one step, because two threads may have the same warning.
        _make_room(_warned)
        _write(2, what, mark=f"{PREFIX}warning: ", colour=_YELLOW)


def note(what: str) -> None:
    """Print a line that is neither an error nor a result."""
    _write(2, PREFIX + what)


def tracing() -> bool:
    """Return whether `trace` writes anything."""
    return _verbose or os.environ.get("BBJWT_TRACE", "") not in _OFF


def trace(what: str) -> None:
    """Record a decision or a request if ``--verbose`` or ``BBJWT_TRACE`` is set.

    ``BBJWT_TRACE=1`` means standard error. A file at an absolute path is appended to, and created with mode 0600.
    """
    target = os.environ.get("BBJWT_TRACE", "")
    if _verbose or target in _ON:
        _write(2, what, mark=f"{PREFIX}trace: ")
    if os.path.isabs(target):
        from git_credential_bbjwt.core.files import open_to_append

        try:
            fd = open_to_append(target)
        except OSError as problem:
            warning(f"the file of BBJWT_TRACE cannot be written: {problem.strerror}")
            return
        try:
            from time import strftime

            _write(fd, f"{strftime('%Y-%m-%dT%H:%M:%S%z')} [{os.getpid()}] {what}")
        finally:
            os.close(fd)
    elif target not in _OFF + _ON:
        warning("BBJWT_TRACE is neither 1 nor the absolute path of a file, so it traces nothing")


def report(problem: Exception) -> int:
    """Print what failed and the next step, one line each; return the exit status."""
    if isinstance(problem, CredentialError):
        error(problem.what, problem.hint)
        return problem.exit_status
    if isinstance(problem, OSError):
        where = f" ({problem.filename})" if problem.filename else ""
        error(f"the system says: {problem.strerror or problem}{where}", "set BBJWT_TRACE=1 to see where")
    elif isinstance(problem, MemoryError) or "start new thread" in str(problem):  # The words of Python's RuntimeError.
        error(
            "the system gives this process no more memory or threads",
            "raise the limit: ulimit -a shows those of the user; a container has its own (memory, pids)",
        )
    else:
        error(
            f"internal error: {type(problem).__name__}",
            "set BBJWT_TRACE=1 to see where, and report it with that trace",
        )
    if tracing():
        import traceback

        for line in traceback.format_exception(problem):
            for part in line.splitlines():
                trace(part)
    return 1
