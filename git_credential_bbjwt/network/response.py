"""An HTTP response."""

from collections.abc import Mapping


class Response:
    """A whole HTTP answer. The names of ``headers`` may be asked for in any case."""

    def __init__(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        self.status = status
        self.body = body
        self.headers = headers

    @property
    def date(self) -> float | None:
        """The Unix time that the server says it is, None where it does not."""
        return http_time(self.headers.get("Date"))


def http_time(text: str | None) -> float | None:
    """Return the Unix time of an HTTP date (RFC 9110, section 5.6.7), None for what is none."""
    if not text:
        return None
    from email.utils import parsedate_to_datetime  # The libraries for HTTP load it, and without what it hardly needs.

    try:
        return parsedate_to_datetime(text).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None
