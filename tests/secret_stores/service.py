"""A small Secret Service that behaves as KeePassXC or KDE's wallet do: ``python -m tests.secret_stores.service KIND``.

It writes ``ready`` when it has its names on the bus, then a line for each window that the real service would open, and
``stored`` for each new secret. Kinds:

- ``keepassxc``: each item is locked for all clients except its creator, until a person has allowed them; a new item has
  a prompt without a window, and deleting an item opens a window ("Secret Service Integration" in its manual).
- ``keepassxc-trusting``: the same with both confirmations switched off.
- ``kwalletd5``: an open wallet that the Secret Service reports as locked until a client unlocks it, without a window.
- ``kwalletd5-closed``: a closed wallet.
- ``forgetful``: an open wallet that returns empty secrets.
- ``vanishing``: a service that ends when a secret is requested.
"""

# ruff: noqa: ARG002  # each method has the arguments of its D-Bus namesake

from __future__ import annotations

import sys
from typing import Any

from jeepney import DBusAddress, HeaderFields, Message, MessageType, new_error, new_method_return, new_signal
from jeepney.bus_messages import message_bus
from jeepney.io.blocking import open_dbus_connection

_SECRETS = "/org/freedesktop/secrets"
_COLLECTION = f"{_SECRETS}/collection/only"
_NO_PROMPT = "/"


class Service:
    """The objects of the bus, by their paths."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.is_locked = kind.startswith("kwalletd5")
        self.items: dict[str, dict[str, Any]] = {}
        self.prompts: dict[str, Any] = {}
        self.connection = open_dbus_connection("SESSION")

    def serve(self) -> None:
        names = ["org.freedesktop.secrets"] + ["org.kde.kwalletd5"] * self.kind.startswith("kwalletd5")
        for name in names:
            self.connection.send_and_get_reply(message_bus.RequestName(name))
        print("ready", flush=True)
        while True:
            message = self.connection.receive()
            if message.header.message_type is MessageType.method_call:
                self._answer(message)

    def _answer(self, message: Message) -> None:
        fields = message.header.fields
        method, path = fields[HeaderFields.member], fields[HeaderFields.path]
        answer = getattr(self, f"_on_{method.lower()}", None)
        try:
            if answer is None:
                raise LookupError
            signature, body = answer(path, fields[HeaderFields.sender], *message.body)
            reply = new_method_return(message, signature, body)
        except LookupError:
            reply = new_error(message, "org.freedesktop.DBus.Error.NotSupported")
        self.connection.send(reply)
        if method == "Prompt":
            self._complete(path, fields[HeaderFields.sender])

    # Properties

    def _on_get(self, path: str, client: str, interface: str, name: str) -> tuple[str, Any]:
        if path in (_COLLECTION, f"{_SECRETS}/aliases/default"):
            return "v", ({"Label": ("s", "only"), "Locked": ("b", self.is_locked)}[name],)
        item = self.items[path]
        return "v", ({"Label": ("s", "an item"), "Locked": ("b", self._is_locked(item, client))}[name],)

    def _is_locked(self, item: dict[str, Any], client: str) -> bool:
        return self.is_locked or (self.kind == "keepassxc" and client not in item["allowed"])

    # The service and its collection

    def _on_opensession(self, path: str, client: str, algorithm: str, value: Any) -> tuple[str, Any]:
        if algorithm != "plain":
            raise LookupError
        return "vo", (("s", ""), f"{_SECRETS}/session/s")

    def _on_searchitems(self, path: str, client: str, attributes: dict[str, str]) -> tuple[str, Any]:
        found = [at for at, item in self.items.items() if attributes.items() <= item["attributes"].items()]
        return "ao", (found,)

    def _on_unlock(self, path: str, client: str, paths: list[str]) -> tuple[str, Any]:
        def unlock() -> tuple[str, Any]:
            self.is_locked = False
            for item in self.items.values():
                item["allowed"].add(client)
            return "ao", paths

        if not self.is_locked and not any(
            self._is_locked(self.items[one], client) for one in paths if one in self.items
        ):
            return "aoo", (paths, _NO_PROMPT)
        return "aoo", ([], self._prompt(unlock, opens_window=self.kind != "kwalletd5"))

    def _on_createitem(
        self, path: str, client: str, properties: dict[str, Any], secret: tuple[Any, ...], replace: bool
    ) -> tuple[str, Any]:
        attributes = properties["org.freedesktop.Secret.Item.Attributes"][1]
        existing = [at for at, item in self.items.items() if item["attributes"] == attributes]
        at = existing[0] if replace and existing else f"{_COLLECTION}/{len(self.items)}"

        def create() -> tuple[str, Any]:
            allowed = self.items.get(at, {}).get("allowed", set()) | {client}
            self.items[at] = {"attributes": attributes, "secret": secret, "allowed": allowed}
            print("stored", flush=True)
            return "o", at

        if not self.kind.startswith("keepassxc"):
            create()
            return "oo", (at, _NO_PROMPT)
        opens_window = at in self.items and self._is_locked(self.items[at], client)
        return "oo", (_NO_PROMPT, self._prompt(create, opens_window=opens_window))

    # Items

    def _on_getsecret(self, path: str, client: str, session: str) -> tuple[str, Any]:
        item = self.items[path]
        if self.kind == "vanishing":
            sys.exit()
        if self._is_locked(item, client):
            raise LookupError
        _, parameters, value, content = item["secret"]
        return "(oayays)", ((session, parameters, b"" if self.kind == "forgetful" else value, content),)

    def _on_delete(self, path: str, client: str) -> tuple[str, Any]:
        def delete() -> tuple[str, Any]:
            del self.items[path]
            return "s", ""

        if not self.kind.startswith("keepassxc"):
            delete()
            return "o", (_NO_PROMPT,)
        return "o", (self._prompt(delete, opens_window=self.kind == "keepassxc"),)

    # Prompts

    def _prompt(self, then: Any, *, opens_window: bool) -> str:
        path = f"{_SECRETS}/prompt/p{len(self.prompts)}"
        self.prompts[path] = (then, opens_window)
        return path

    def _on_prompt(self, path: str, client: str, window: str) -> tuple[str, Any]:
        if self.prompts[path][1]:
            print("window", flush=True)
        return "", ()

    def _complete(self, path: str, client: str) -> None:
        then, opens_window = self.prompts[path]
        if opens_window:
            return  # No person answers.
        emitter = DBusAddress(path, interface="org.freedesktop.Secret.Prompt")
        signal = new_signal(emitter, "Completed", "bv", (False, then()))
        signal.header.fields[HeaderFields.destination] = client
        self.connection.send(signal)

    # KDE's own interface

    def _on_networkwallet(self, path: str, client: str) -> tuple[str, Any]:
        return "s", ("kdewallet",)

    def _on_isopen(self, path: str, client: str, wallet: str) -> tuple[str, Any]:
        return "b", (self.kind == "kwalletd5",)


if __name__ == "__main__":
    Service(sys.argv[1]).serve()
