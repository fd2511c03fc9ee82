"""The end of Bitbucket's support for Connect apps.

Source: an e-mail of Atlassian's to customers, quoted in getsentry/sentry issue 123474 (September 2026): "Support for
Connect in Bitbucket Cloud ends on January 31, 2027". No page of Atlassian's with the date was found.
"""

import time

#: The announced end as a Unix time. The day begins at 00:00 UTC.
END_OF_CONNECT = 1_801_353_600


def day_of_the_end() -> str:
    """Return the announced day in words: "January 31, 2027"."""
    day = time.gmtime(END_OF_CONNECT)
    return f"{time.strftime('%B', day)} {day.tm_mday}, {day.tm_year}"


def days_left(now: float) -> int:
    """Return the whole days from the Unix time ``now`` to the end; negative after it."""
    return int((END_OF_CONNECT - now) // 86_400)
