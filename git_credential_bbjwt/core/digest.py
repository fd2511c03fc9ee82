"""The digest for file names and for comparisons."""

# hashlib loads OpenSSL, which takes a third of a Python start, although it takes BLAKE2 from this module.
from _blake2 import blake2b


def digest(*parts: "str | bytes") -> str:
    """Return a hexadecimal digest that is different for each list of ``parts``."""
    hasher = blake2b(digest_size=16)
    for part in parts:
        data = part if isinstance(part, bytes) else part.encode("utf-8", "surrogateescape")
        hasher.update(len(data).to_bytes(8, "big"))
        hasher.update(data)
    return hasher.hexdigest()
