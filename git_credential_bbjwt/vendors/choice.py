"""The choice of the vendor for a source. Each vendor is imported only when it is used."""

from git_credential_bbjwt.core.on_demand import BrokerSource, CommandSource, OnDemandSource
from git_credential_bbjwt.installations.installation import Installation
from git_credential_bbjwt.vendors.session import Session
from git_credential_bbjwt.vendors.vendor import Chooser, Vendor


def vendor_for(source: Installation | OnDemandSource, session: Session) -> Vendor | Chooser:
    """Return the vendor of an installation, or of an installation command or broker that is asked."""
    if isinstance(source, CommandSource):
        from git_credential_bbjwt.vendors.command import InstallationCommand

        return InstallationCommand(source, session, vendor_of_installation)
    if isinstance(source, BrokerSource):
        from git_credential_bbjwt.vendors.broker import Broker

        return Broker(source, session)
    assert isinstance(source, Installation)
    return vendor_of_installation(source, session)


def vendor_of_installation(installation: Installation, session: Session) -> Vendor:
    """Return the vendor of an installation, whatever source it is from."""
    if installation.is_consumer:
        from git_credential_bbjwt.vendors.oauth_consumer import OAuthConsumer

        return OAuthConsumer(installation, session)
    from git_credential_bbjwt.vendors.connect import Connect

    return Connect(installation, session)
