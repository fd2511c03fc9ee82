"""HTTP responses, the times in them, and the errors of requests and responses."""

import time
from typing import Protocol


class BrokenResponseError(Exception):
    """The received data is not an HTTP response, or it ended too early."""


class TooLongError(Exception):
    """The response is longer than the limit."""


class UnsendableError(Exception):
    """A value of the request has a character that HTTP does not allow."""


class HeaderFields(Protocol):
    """The header fields of a response."""

    def get(self, name: str, /) -> str | None:
        """Return the field's value, None if the response does not have it."""


class Response:
    """A whole HTTP response. The names of ``headers`` can be used in any case."""

    def __init__(self, status: int, body: bytes, headers: HeaderFields) -> None:
        self.status = status
        self.body = body
        self.headers = headers

    @property
    def date(self) -> float | None:
        """The Unix time by the server's clock, None if the response does not have it."""
        return http_time(self.headers.get("Date"))

    @property
    def retry_after(self) -> float | None:
        """The seconds that ``Retry-After`` asks to wait (RFC 9110, section 10.2.3: a number, or a date)."""
        text = (self.headers.get("Retry-After") or "").strip()
        if text.isascii() and text.isdigit():
            return float(text[:10])
        when = http_time(text)
        if when is None:
            return None
        now = self.date  # By the server's own clock if it is known, because this machine's may be off.
        return max(0.0, when - (time.time() if now is None else now))


# Characters of an HTTP date; the three forms of RFC 9110 are shorter.
_LONGEST_DATE = 64


def http_time(text: str | None) -> float | None:
    """Return the Unix time of an HTTP date (RFC 9110, section 5.6.7), None for any other text.

    A date without a time zone, as in the asctime form, is in UTC.
    """
    if not text or len(text) > _LONGEST_DATE:
        return None
    from calendar import timegm  # Only refusals and doctor need these two.
    from email.utils import parsedate_to_datetime

    try:
        return float(timegm(parsedate_to_datetime(text).utctimetuple()))
    except (ValueError, TypeError, OverflowError):
        return None
