"""Installation commands, which print a payload from a secret store for one mint. It is never in a file."""

from collections.abc import Callable

from git_credential_bbjwt.core.digest import digest
from git_credential_bbjwt.core.failures import CredentialError
from git_credential_bbjwt.core.on_demand import OnDemandSource
from git_credential_bbjwt.core.output import hide, note
from git_credential_bbjwt.core.repository import Repository
from git_credential_bbjwt.core.source import unpacked
from git_credential_bbjwt.installations.catalogue import chosen
from git_credential_bbjwt.installations.installation import Installation
from git_credential_bbjwt.installations.payload import parse_payload
from git_credential_bbjwt.system import child_process, shell
from git_credential_bbjwt.system.budget import Budget
from git_credential_bbjwt.vendors.printed_secrets import shown_lines
from git_credential_bbjwt.vendors.session import Session
from git_credential_bbjwt.vendors.vendor import Vendor

# Bytes. A real payload has about 2 kB.
_LONGEST_PAYLOAD = 1024 * 1024

# Number of lines of the command's standard error that are shown.
_MOST_LINES = 20


class InstallationCommand:
    """A source that runs an installation command. Its vendors are those of the printed installations.

    Their tokens have the command's identity, so a cached token is used until its end without running the command again.
    """

    def __init__(
        self, source: OnDemandSource, session: Session, vendor_of: Callable[[Installation, Session], Vendor]
    ) -> None:
        self.identity = digest("command", source.how)
        self._source = source
        self._session = session
        self._vendor_of = vendor_of

    def vendors(self, repository: Repository) -> list[Vendor]:
        """Return the vendors of the printed installations; none if nothing is printed. Raises CredentialError."""
        self._session.has_asked = True
        self._session.budget.doing = f"waiting for {self._source.where}"
        installations = ask_command(self._source, repository, self._session.budget)
        found = [self._vendor_of(one, self._session) for one in installations]
        for one in found:
            one.identity = self.identity
        return found


def ask_command(source: OnDemandSource, repository: Repository, budget: Budget) -> list[Installation]:
    """Run the command for ``repository``; return the installations to ask, none if the command prints nothing.

    Raises CredentialError if the command fails or prints another workspace's payload. Raises InstallationError if it
    prints anything other than a payload.
    """
    environment = {
        **child_process.for_broker(),
        "BBJWT_HOST": repository.host,
        "BBJWT_WORKSPACE": repository.workspace,
        "BBJWT_REPOSITORY": repository.name,
    }
    done = shell.run(source.how, b"", most=_LONGEST_PAYLOAD, env=environment, seconds=budget.remaining())
    budget.remaining()  # If the budget has ended the command, its output is incomplete.
    where = f"the output of {source.where}"
    for line in shown_lines(done.errors, done.output, _MOST_LINES):
        note(line)
    if len(done.output) > _LONGEST_PAYLOAD:
        raise CredentialError(f"{where} is over {_LONGEST_PAYLOAD} bytes long", "it must print one payload")
    if done.status != 0:
        status = f"failed with exit status {done.status}" if done.status > 0 else f"was ended by signal {-done.status}"
        raise CredentialError(
            f"{source.where} {status}",
            "run it by hand to see why; BBJWT_HOST, BBJWT_WORKSPACE and BBJWT_REPOSITORY name the repository",
        )
    if not done.output.strip():
        return []
    printed = parse_payload(unpacked(done.output) or done.output, where)
    for one in printed:
        hide(one.shared_secret)
    serving = [one for one in printed if one.serves(repository)]
    if not serving:
        raise CredentialError(
            f"{source.where} printed the payload of another workspace than {repository.workspace}",
            "it must print the payload of BBJWT_WORKSPACE, or nothing and exit with 0",
        )
    first = chosen(serving, repository.workspace, "") or serving[0]
    return [first, *[one for one in serving if one.after_connect and one != first][:1]]
