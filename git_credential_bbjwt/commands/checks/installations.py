"""The installations of this machine, and whether their secrets can be read."""

from collections.abc import Generator, Iterator
from itertools import islice
from shlex import quote

from git_credential_bbjwt.commands.checks.check import Check, Subject, checked, failed, note
from git_credential_bbjwt.core.failures import OWN_HOME
from git_credential_bbjwt.core.files import APP_NAME, home_is_anothers, why_no_home
from git_credential_bbjwt.core.repository import Repository
from git_credential_bbjwt.installations.catalogue import Catalogue, with_replacements
from git_credential_bbjwt.installations.installation import Installation, SecretPlace
from git_credential_bbjwt.secret_stores.keyring_call import KeyringCall, keyring_error
from git_credential_bbjwt.secret_stores.secret_store import shared_secret_of
from git_credential_bbjwt.vendors.session import check_jwt_not_expired

#: How many installations are checked without a URL. So many are a second or two of work.
MOST = 20


def concerned(catalogue: Catalogue, repository: Repository | None) -> list[Installation]:
    """Return the installations to check: those that can serve ``repository``, else the first ones."""
    if repository is None:
        return list(islice(catalogue, MOST))
    return [one for one in catalogue.naming(repository.workspace) if one.host == repository.host]


def sources(subject: Subject) -> Iterator[Check]:
    """Check that there is an installation, or a command or broker to ask."""
    problems = subject.catalogue.problems()
    for problem in problems:
        yield failed("installation", problem.what, problem.hint)
    for one in subject.asked:
        yield note("installation", f"{one.where} is asked about {', '.join(one.hosts)} when a token is needed")
    if not subject.installations and not problems and not subject.asked:
        yield _none(subject)
    if subject.repository is None:
        # Only a vendor has more; counting them takes a second for 100,000.
        more = sum(1 for _ in subject.catalogue) - MOST
        if more > 0:
            yield note("installation", f"{more} more are not checked; name a repository's URL to check its own")


def _none(subject: Subject) -> Check:
    register = f"{APP_NAME} register FILE"
    first = islice(subject.catalogue, MOST)
    names = [f"{one.host}/{name}" for one in first for name in one.workspaces or (f"* ({one.where})",)]
    if home_is_anothers() and not names:
        return failed("installation", f"no installation is known on this machine{why_no_home()}", OWN_HOME)
    if subject.repository is None or not names:
        return failed("installation", "no installation is known on this machine", register)
    what = f"no installation is for the workspace {subject.repository.workspace} on {subject.repository.host}"
    known = ", ".join(dict.fromkeys(names)) + (" and more" if len(names) >= MOST else "")
    return failed("installation", f"{what}; known: {known}", f"{register}; or correct the URL")


def secrets(installations: list[Installation]) -> Generator[Check, None, list[Installation]]:
    """Check the keyring, and that each secret can be read; return the installations with one that can."""
    stored = [one.keyring_backend for one in installations if one.secret_place is SecretPlace.KEYRING]
    keyrings = {backend: checked("keyring", _keyring, backend) for backend in dict.fromkeys(stored or [""])}
    for keyring in keyrings.values():
        yield keyring if keyring.ok or stored else note("keyring", f"{keyring.detail}; no installation needs it")
    readable = []
    for one, used in with_replacements(installations):
        if one.secret_place is SecretPlace.KEYRING and not keyrings[one.keyring_backend].ok:
            yield note("installation", f"{described(one)}: its secret is in the keyring, see above")
            continue
        if one.is_exposed:
            what = f"{described(one)}: others on this machine can read it"
            yield failed("installation", what, f"run: chmod 600 {quote(one.where)}")
        found = checked("installation", _installation, one)
        if found.ok:
            readable.append(one)
        if not found.ok or not one.is_exposed:
            yield found
        if used is not one:
            yield note("installation", f"{one.name} is not used: {used.name} was registered later")
    return readable


def _keyring(backend: str) -> str:
    reply = KeyringCall("describe", "", backend=backend).reply()
    if not reply.is_ok:
        raise keyring_error(reply)
    other = f"; register uses {reply.in_use} ({reply.chosen_by or 'keyring chose it'})" if reply.in_use else ""
    return reply.backend + other


def described(one: Installation) -> str:
    """Return its name, its workspaces and its place."""
    return f"{one.name} on {', '.join(one.workspaces) or 'any workspace'} ({one.where})"


def _installation(one: Installation) -> str:
    if one.jwt:
        check_jwt_not_expired(one)
        return f"{described(one)}: a JWT signed elsewhere"
    shared_secret_of(one)()
    opens = "; its tokens open every repository of the workspace" if one.is_consumer else ""
    return f"{described(one)}: its secret is {one.secret_place.described}{opens}"
