"""Announcements in the headers of good responses: a function is deprecated, or ends on a day.

Sources: RFC 9745 (``Deprecation``), RFC 8594 (``Sunset`` and its link). Dates are parsed and never shown as received.
A link is shown only if it is one of Atlassian's own announcements.
"""

import re
import time
from typing import NamedTuple

from git_credential_bbjwt.network.response import HeaderFields, http_time

#: The site of Atlassian's announcements. No other link of a response is shown.
ANNOUNCEMENTS = "https://developer.atlassian.com/"

# One link of a header, and its parameters (RFC 8288).
_LINK = r"<([^<>\s]*)>([^,]*)"

_LONGEST_LINK = 300

# Number of a header's characters that are searched for links.
_SEARCHED = 2_000


class Announcement(NamedTuple):
    """An announced end. ``deprecated`` and ``ends`` are Unix times, None if not known; ``link`` may be empty."""

    deprecated: float | None
    ends: float | None
    link: str

    def __str__(self) -> str:
        if self.ends is not None:
            what = f"ends on {_day(self.ends)}"
        else:
            what = f"is deprecated since {_day(self.deprecated or 0)}, without a date for its end"
        return f"Bitbucket announces that a function {what}" + (f": {self.link}" if self.link else "")


def announced(headers: HeaderFields) -> Announcement | None:
    """Return the announcement in a response's ``headers``, if there is one."""
    deprecated, ends = _unix_time(headers.get("Deprecation")), http_time(headers.get("Sunset"))
    if deprecated is None and ends is None:
        return None
    links = re.findall(_LINK, (headers.get("Link") or "")[:_SEARCHED])
    pages = [url for url, what in links if 'rel="deprecation"' in what or 'rel="sunset"' in what]
    shown = [url for url in pages if is_shown(url)]
    return Announcement(deprecated, ends, shown[0] if shown else "")


def is_shown(link: str) -> bool:
    """Return whether ``link`` may be shown: it is Atlassian's, and nothing in it looks like a token."""
    if not link.startswith(ANNOUNCEMENTS) or len(link) > _LONGEST_LINK or not link.isascii():
        return False
    from git_credential_bbjwt.core.server_text import safe_text

    return all(safe_text(part) == part for part in link.split("/"))


def _unix_time(text: str | None) -> float | None:
    """Parse ``@`` and a Unix time (RFC 9745, section 2.1)."""
    digits = (text or "").strip().removeprefix("@")
    return float(digits) if digits.isascii() and digits.isdigit() and len(digits) <= 11 else None


def _day(when: float) -> str:
    try:
        return time.strftime("%Y-%m-%d", time.gmtime(when))
    except (ValueError, OverflowError, OSError):
        return "an unknown day"
