"""The one place where libraries are imported without modules that they load and that nothing here has a use for.

A third of what a mint imports is such. Each of them is named here with why it is safe, a test imports every library
both ways with the lowest and the newest versions, and what would use such a module fails by itself, with an error.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType


def _version(name: str) -> str:
    raise LookupError(f"the version of {name} is not looked up here")


def _stand_in(name: str, **attributes: object) -> ModuleType:
    module = ModuleType(name)
    module.__dict__.update(attributes)
    return module


#: PyJWT loads `cryptography` if it can, for algorithms with public keys, and HS256 has none: None makes it fail.
#: A library of keyring's loads `urllib.request` for one function that fetches something, and with it HTTP and mail.
#: urllib3 loads `importlib.metadata` to look for HTTP/2, which is neither installed nor offered.
_STAND_INS: dict[str, ModuleType | None] = {
    "cryptography": None,
    "importlib.metadata": _stand_in("importlib.metadata", version=_version),
    "urllib.request": _stand_in("urllib.request"),
}


@contextmanager
def without(*names: str) -> Iterator[None]:
    """Import what is imported within this without the modules ``names``, unless they are loaded already."""
    missing = [name for name in names if name not in sys.modules]
    for name in missing:
        sys.modules[name] = _STAND_INS[name]  # type: ignore[assignment]  # None is documented: its import fails
    try:
        yield
    finally:
        for name in missing:
            if sys.modules.get(name) is _STAND_INS[name]:  # Two threads may be at it.
                sys.modules.pop(name, None)
