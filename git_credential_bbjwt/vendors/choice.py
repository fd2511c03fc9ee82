"""Which vendor answers for which kind of source: one row each."""

from collections.abc import Callable
from typing import Any

from git_credential_bbjwt.installations.asked import Asked
from git_credential_bbjwt.installations.installation import Installation
from git_credential_bbjwt.vendors.session import Session
from git_credential_bbjwt.vendors.vendor import Chooser, Vendor


def _connect(source: Any, session: Session) -> Vendor:
    from git_credential_bbjwt.vendors.connect import Connect

    return Connect(source, session)


def _oauth_consumer(source: Any, session: Session) -> Vendor:
    from git_credential_bbjwt.vendors.oauth_consumer import OAuthConsumer

    return OAuthConsumer(source, session)


def _command(source: Any, session: Session) -> Chooser:
    from git_credential_bbjwt.vendors.command import InstallationCommand

    return InstallationCommand(source, session)


def _broker(source: Any, session: Session) -> Vendor:
    if source.how.startswith("https:"):
        from git_credential_bbjwt.vendors.https_broker import HttpsBroker

        return HttpsBroker(source, session)

    from git_credential_bbjwt.vendors.broker import Broker

    return Broker(source, session)


# By the `kind` of the source, as `list --json` names it. Each imports its vendor only when it is used.
_VENDORS: dict[str, Callable[[Any, Session], Vendor | Chooser]] = {
    "connect": _connect,
    "oauth-consumer": _oauth_consumer,
    "command": _command,
    "broker": _broker,
}


def vendor_for(source: Installation | Asked, session: Session) -> Vendor | Chooser:
    """Return the vendor of an installation, or of an installation command or broker that is asked."""
    kind = source.kind if isinstance(source, Asked) else source.kind.value
    return _VENDORS[kind](source, session)
