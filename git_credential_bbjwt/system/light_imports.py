"""The one place where libraries are imported without modules that they load and that nothing here has a use for.

Half of what a mint would import is such. Each of them is named here with why it is safe, a test imports every library
both ways with the lowest and the newest versions, and what would use such a module fails by itself, with an error.
"""

import importlib
import sys
import threading
from collections.abc import Callable, Sequence
from types import ModuleType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec
    from typing import Any, TypeVar

    from jwt import PyJWS
    from urllib3.connection import HTTPSConnection

    _Loaded = TypeVar("_Loaded")


def _version(name: str) -> str:
    raise LookupError(f"the version of {name} is not looked up here")


class _Unheard:
    """A logger. What urllib3 logs, of odd headers and tries it counts, is said here in other words."""

    def debug(self, *_: object) -> None: ...

    warning = debug


# Held for a moment, never while something is imported.
_replacing = threading.Lock()


class _AtFirstUse(ModuleType):
    """A module that is loaded when something of it is first asked for that is not among the ``attributes``."""

    def __init__(self, name: str, **attributes: object) -> None:
        super().__init__(name)
        self.__dict__.update(attributes)

    def __getattr__(self, name: str) -> "Any":
        if name.startswith("__"):
            raise AttributeError(name)
        with _replacing:
            if sys.modules.get(self.__name__) is self:
                del sys.modules[self.__name__]
        return getattr(importlib.import_module(self.__name__), name)


class _WhenUsed:
    """Something of a module that is loaded only where it is called after all."""

    def __init__(self, module: str, *names: str) -> None:
        self._module = module
        self._names = names

    def __getattr__(self, name: str) -> "_WhenUsed":
        if name.startswith("__"):
            raise AttributeError(name)
        return _WhenUsed(self._module, *self._names, name)

    def __call__(self, *arguments: object, **keywords: object) -> "Any":
        if isinstance(sys.modules.get(self._module), _LoadedWhenUsed):
            del sys.modules[self._module]
        found: Any = importlib.import_module(self._module)
        for name in self._names:
            found = getattr(found, name)
        return found(*arguments, **keywords)


class _LoadedWhenUsed(ModuleType):
    def __getattr__(self, name: str) -> _WhenUsed:
        if name.startswith("__"):
            raise AttributeError(name)
        return _WhenUsed(self.__name__, name)


def _stand_in(name: str, **attributes: object) -> ModuleType:
    module = ModuleType(name)
    module.__dict__.update(attributes)
    return module


# Modules of Python's own that others of them load, whole, for a function that nobody calls here: `array` is for passing
# descriptors on, `calendar` for dates in mail, `ipaddress` for URLs with brackets, `random` for the names of messages.
_AT_FIRST_USE = ("array", "calendar", "ipaddress", "random")

# Of each library: what stands in for modules that it loads. None makes an import fail, which it is prepared for.

#: Headers are parsed by Python's modules for mail, which can encode and decode text as mail has it. HTTP has no such.
_NOT_FOR_HTTP: dict[str, ModuleType | None] = {
    "email._encoded_words": _LoadedWhenUsed("email._encoded_words"),
    "email.charset": _LoadedWhenUsed("email.charset"),
    "email.header": _LoadedWhenUsed("email.header"),
    "quopri": _LoadedWhenUsed("quopri"),
    # Python's own has the same in Python, too, and replaces it by this when all of it is read.
    "datetime": _AtFirstUse("_datetime"),
}

_NOT_FOR_URLLIB3: dict[str, ModuleType | None] = {
    # It looks for them for compressed answers, and none is asked for; "compression" is that of Python 3.14.
    "brotlicffi": None,
    "brotli": None,
    "backports": None,
    "compression": None,
    # It looks for HTTP/2, which is neither installed nor offered.
    "importlib.metadata": _stand_in("importlib.metadata", version=_version),
    # It has loggers, and nobody has asked to hear them.
    "logging": _stand_in("logging", getLogger=lambda _: _Unheard()),
    # It takes URLs apart, and a connection is given hosts and ports. To compile its patterns takes long.
    "urllib3.util.url": _LoadedWhenUsed("urllib3.util.url"),
    # It counts tries, which are counted here, and compares host names, which OpenSSL does.
    "urllib3.util.retry": _LoadedWhenUsed("urllib3.util.retry"),
    "urllib3.util.ssl_match_hostname": _LoadedWhenUsed("urllib3.util.ssl_match_hostname"),
}

#: It has algorithms with public keys, and HS256 has none.
_NOT_FOR_PYJWT: dict[str, ModuleType | None] = {"cryptography": None}


def of_python() -> None:
    """Have modules of Python's own load what they seldom need when they need it; from now on."""
    for name in _AT_FIRST_USE:
        sys.modules.setdefault(name, _AtFirstUse(name))


def https_connection() -> "type[HTTPSConnection]":
    """urllib3's connection, without its pools."""

    def load() -> "type[HTTPSConnection]":
        _import_parts_of("urllib3")
        with _without(_NOT_FOR_HTTP), _without(_NOT_FOR_URLLIB3):
            importlib.import_module("urllib3.response")  # Else the first answer would load it, and more.
            from urllib3.connection import HTTPSConnection

            return HTTPSConnection

    return _once("urllib3", load)


def jws_encoder() -> "PyJWS":
    """What signs the claims of a JWT (RFC 7519, section 7.1), without what reads one, fetches keys, or knows dates."""

    def load() -> "PyJWS":
        _import_parts_of("jwt")
        with _without(_NOT_FOR_PYJWT):
            from jwt.api_jws import PyJWS

            return PyJWS()

    return _once("jwt", load)


def _once(name: str, load: "Callable[[], _Loaded]") -> "_Loaded":
    # One at a time: another thread must not take a stand-in for the module.
    with _lock:
        if name not in _loaded:
            _loaded[name] = load()
        found: _Loaded = _loaded[name]
        return found


_lock = threading.RLock()
_loaded: "dict[str, Any]" = {}


class _without:  # noqa: N801  # a context manager, which reads as a word
    """Import what is imported within this with these in the place of modules, unless they are loaded already."""

    def __init__(self, stand_ins: dict[str, ModuleType | None]) -> None:
        self._stand_ins = stand_ins
        self._missing: list[str] = []

    def __enter__(self) -> None:
        self._missing = [name for name in self._stand_ins if name not in sys.modules]
        for name in self._missing:
            sys.modules[name] = self._stand_ins[name]  # type: ignore[assignment]  # None is documented: its import fails

    def __exit__(self, *exc: object) -> None:
        for name in self._missing:
            if sys.modules.get(name) is self._stand_ins[name]:  # Else it was used after all.
                del sys.modules[name]


class _Package(ModuleType):
    """A package whose modules can be imported without what it loads itself: that waits until one uses it."""

    def __getattr__(self, name: str) -> "Any":
        # `from . import NAME` within the package asks for an attribute first, and means a module.
        if _spec_of(f"{self.__name__}.{name}", list(self.__path__)) is not None:
            return importlib.import_module(f"{self.__name__}.{name}")
        with _lock:
            if isinstance(self, _Package):
                object.__setattr__(self, "__class__", ModuleType)
                loader = self.__spec__.loader if self.__spec__ else None
                assert loader is not None
                loader.exec_module(self)
        return getattr(self, name)


def _import_parts_of(name: str) -> None:
    """Have the package ``name`` be loaded no further than those of its modules that are imported."""
    if name not in sys.modules:
        spec = _spec_of(name)
        assert spec is not None
        package = _Package(name)
        package.__path__ = spec.submodule_search_locations or []
        package.__package__, package.__file__ = name, spec.origin
        package.__spec__, package.__loader__ = spec, spec.loader
        sys.modules[name] = package


def _spec_of(name: str, path: "Sequence[str] | None" = None) -> "ModuleSpec | None":
    return next((spec for finder in sys.meta_path if (spec := finder.find_spec(name, path))), None)
