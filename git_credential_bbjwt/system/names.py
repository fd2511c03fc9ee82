"""File names made of parts: readable where the parts are short and plain, a digest of them where they are not."""

# A host's colon and a scope's blank have stand-ins, for Windows knows neither at such a place in a name. No letter in
# upper case: there are file systems that take it for the lower one.
_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyz0123456789._-{}[]: ,")

# File systems stop at 255, and files beside this one have a longer name. Characters.
_LONGEST = 200


def file_name(*parts: str) -> str:
    """Return a name that no other list of two or more parts has."""
    name = ",".join(parts)
    if len(name) <= _LONGEST and _PLAIN.issuperset(name) and name.count(",") == len(parts) - 1:
        return name.replace(":", "=").replace(" ", "+")

    from git_credential_bbjwt.system.digest import digest

    return digest(*parts)
