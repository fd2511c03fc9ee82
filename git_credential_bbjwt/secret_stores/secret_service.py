"""Keep the Secret Service from opening windows, in the keyring's process.

By the specification a service opens a window only if a client calls ``Prompt`` on a prompt object
(https://specifications.freedesktop.org/secret-service-spec/latest/, "Prompts and Prompting"). keyring's backend calls
it whenever a collection or an item is locked. It is not enough to check first whether the collection is locked, because
KeePassXC locks each item and asks before it deletes one. So this module replaces the library's functions that call
``Prompt``.
"""

import contextlib
import sys
from importlib import import_module
from typing import Any

#: The module of keyring's backend.
MODULE = "keyring.backends.SecretService"

# KDE's wallet, which is also a Secret Service: its own name on the bus, and the path of its own interface.
_WALLETS = (("org.kde.kwalletd5", "/modules/kwalletd5"), ("org.kde.kwalletd6", "/modules/kwalletd6"))


class WouldAskError(Exception):
    """The service wants to ask a person."""


class LockedItemError(Exception):
    """The service wants to ask a person whether this one secret may be used."""


def forbid_windows(*, is_person_there: bool) -> None:
    """Raise WouldAskError and LockedItemError from now on if the service would open a window.

    If ``is_person_there``, the service may still ask before it deletes a secret, and for a new collection's password.
    """
    item: Any = import_module("secretstorage.item")
    collection: Any = import_module("secretstorage.collection")
    util: Any = import_module("secretstorage.util")
    run_prompt = util.exec_prompt
    create_item = collection.Collection.create_item

    def refuse(connection: Any, path: str, **options: Any) -> Any:
        if not _is_open_wallet(connection):
            raise WouldAskError("its service wants to ask a person")
        # kwalletd5 reports an open wallet as locked until a client unlocks it, which opens no window.
        return run_prompt(connection, path, **options)

    def refuse_collection(*_: Any, **__: Any) -> Any:
        raise WouldAskError("its service has no default collection yet")

    def refuse_item(one: Any, *_: Any, **__: Any) -> bool:
        if one.is_locked():
            raise LockedItemError
        return False

    def create(self: Any, label: str, attributes: dict[str, str], *rest: Any, **options: Any) -> Any:
        # KeePassXC has a prompt for each new item, but opens a window only if the item replaces a locked one.
        for one in self.search_items(attributes):
            refuse_item(one)
        return create_item(self, label, attributes, *rest, **options)

    util.exec_prompt = refuse
    if not is_person_there:
        item.exec_prompt = refuse
        collection.create_collection = refuse_collection
    item.Item.unlock = item.Item.ensure_not_locked = refuse_item
    collection.Collection.create_item = create


def is_locked(backend: Any) -> bool:
    """Return whether the collection that ``backend`` uses is locked or does not exist yet."""
    import secretstorage

    with contextlib.closing(secretstorage.dbus_init()) as bus:
        path = getattr(backend, "preferred_collection", None)
        try:
            collection = secretstorage.Collection(bus, path) if path else secretstorage.Collection(bus)
        except secretstorage.ItemNotFoundException:
            return True  # To create a collection, the service asks for a password.
        return bool(collection.is_locked()) and not _is_open_wallet(bus)


def is_wallet_closed(backend: Any) -> bool:
    """Return whether the wallet of keyring's KWallet ``backend`` is closed."""
    dbus: Any = sys.modules["dbus"]  # The backend has loaded it.
    service = dbus.SessionBus().get_object(backend.bus_name, backend.object_path)
    wallet = dbus.Interface(service, "org.kde.KWallet")
    return not wallet.isOpen(wallet.networkWallet())


def _is_open_wallet(connection: Any) -> bool:
    """Return whether the Secret Service on this bus is KDE's wallet and its own interface says that it is open."""
    bus = ("/org/freedesktop/DBus", "org.freedesktop.DBus", "org.freedesktop.DBus")
    service = _called(connection, bus, "GetConnectionUnixProcessID", "org.freedesktop.secrets")
    for name, path in _WALLETS:
        if service is not None and service == _called(connection, bus, "GetConnectionUnixProcessID", name):
            wallet = (path, name, "org.kde.KWallet")
            network = _called(connection, wallet, "networkWallet")
            return network is not None and bool(_called(connection, wallet, "isOpen", network))
    return False


def _called(connection: Any, at: tuple[str, str, str], method: str, *strings: str) -> Any:
    """Return the result of a D-Bus method that takes ``strings``; None if it fails."""
    from jeepney import DBusAddress, MessageFlag, MessageType, new_method_call

    path, name, interface = at
    address = DBusAddress(path, bus_name=name, interface=interface)
    message = new_method_call(address, method, "s" * len(strings) or None, strings)
    message.header.flags |= MessageFlag.no_auto_start
    reply = connection.send_and_get_reply(message)
    return None if reply.header.message_type is MessageType.error else reply.body[0]
