"""One check of `doctor`: what was checked, what was found, and what to do about it; and the subject of all checks."""

from collections.abc import Callable
from typing import NamedTuple, ParamSpec

from git_credential_bbjwt.core.failures import CredentialError
from git_credential_bbjwt.core.on_demand import OnDemandSource
from git_credential_bbjwt.core.options import HelperOptions
from git_credential_bbjwt.core.output import one_line
from git_credential_bbjwt.core.repository import Repository
from git_credential_bbjwt.installations.catalogue import Catalogue
from git_credential_bbjwt.installations.installation import Installation
from git_credential_bbjwt.vendors.session import Session

_P = ParamSpec("_P")


class Check(NamedTuple):
    """The result of one check. ``ok`` is None for a note, which never changes the exit status."""

    name: str
    ok: bool | None
    detail: str
    remedy: str = ""


class Subject(NamedTuple):
    """The subject of `doctor`: a ``repository``, or without one the needs of the first ``installations``."""

    repository: Repository | None
    options: HelperOptions
    catalogue: Catalogue
    installations: list[Installation]
    session: Session

    @property
    def asked(self) -> list[OnDemandSource]:
        """The commands and brokers that are asked about the host."""
        everyone = self.catalogue.to_ask()
        return [one for one in everyone if self.repository is None or self.repository.host in one.hosts]


def passed(name: str, detail: str) -> Check:
    """Return a check that passed."""
    return Check(name, True, one_line(detail))


def failed(name: str, detail: str, remedy: str) -> Check:
    """Return a check that failed, with the command to paste or the next step."""
    return Check(name, False, one_line(detail), one_line(remedy))


def note(name: str, detail: str, remedy: str = "") -> Check:
    """Return something that is neither good nor bad."""
    return Check(name, None, one_line(detail), one_line(remedy))


def checked(name: str, check: Callable[_P, str], *args: _P.args, **kwargs: _P.kwargs) -> Check:
    """Return what ``check`` returns or raises as a check."""
    try:
        return passed(name, check(*args, **kwargs))
    except CredentialError as problem:
        return failed(name, problem.what, problem.hint)
