"""The names of the files in the token cache.

A record's file is ``PART/PART/HOST,WORKSPACE,NAME,SCOPE,APP``. Other files of the same slot have the same name and one
of these endings.
"""

from git_credential_bbjwt.core.record import CLOSED as CLOSED

#: Begins each ending.
BESIDE = "~"

#: The lock of a slot or of a counter.
LOCK = "~lock"

#: The times at which refused tokens of a slot were replaced.
REMINTS = "~reminted"

#: Refused tokens, which a broker must not return again.
REFUSED = "~refused"

#: The lock of the process that checks whether Connect still works, and the time when it last worked.
CONNECT = "~connect"
CONNECT_WORKS = "~works"

#: The UUID of a repository.
UUID = "~uuid"

#: The note that a broker is about to get a token.
MINTING = "~minting"

#: The name that a broker found for a repository that was requested by UUIDs.
NAMED = "~named"

ENDINGS = (LOCK, REMINTS, CLOSED, REFUSED, CONNECT, CONNECT_WORKS, UUID, MINTING, NAMED)

#: The folder of remembered refusals.
REFUSALS = "refusals"

#: Seconds for which a refusal is remembered, and those for an outage of look-ups.
REFUSAL_LIFE = 30
OUTAGE_LIFE = 120

#: Begin the names of the files that count a broker's look-ups: those by UUIDs, and those that find nothing.
LOOKUPS = "lookups"
MISSES = "misses"

#: Limit of each per minute, and so the number of files for each: ``lookups~00`` and so on.
MOST_LOOKUPS = 20
