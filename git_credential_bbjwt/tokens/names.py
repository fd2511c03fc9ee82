"""The names of the files in the token cache.

A record is ``PART/PART/HOST,WORKSPACE,NAME,SCOPE,APP``; what is known beside it ends with one of these endings.
"""

from git_credential_bbjwt.tokens.record import CLOSED as CLOSED

#: Begins each ending.
BESIDE = "~"

#: The lock of a slot or of a counter.
LOCK = "~lock"

#: When tokens of a slot were replaced because the server refused them.
REMINTS = "~reminted"

#: Tokens that a broker must not give again.
REFUSED = "~refused"

#: The lock of the one process that asks whether Connect still works, and when it last did.
CONNECT = "~connect"
CONNECT_WORKS = "~works"

#: The UUID of a repository.
UUID = "~uuid"

#: A broker is about to get a token.
MINTING = "~minting"

#: The name that a broker found for a repository named by UUIDs.
NAMED = "~named"

ENDINGS = (LOCK, REMINTS, CLOSED, REFUSED, CONNECT, CONNECT_WORKS, UUID, MINTING, NAMED)

#: The folder of remembered refusals.
REFUSALS = "refusals"

#: Seconds for which a refusal is remembered, and for which an outage of look-ups is.
REFUSAL_LIFE = 30
OUTAGE_LIFE = 120

#: Begin the names of the files that count a broker's look-ups: those by UUIDs, and those that find nothing.
LOOKUPS = "lookups"
MISSES = "misses"

#: How many of each there may be in a minute, and so how many files: ``lookups~00`` and so on.
MOST_LOOKUPS = 20
