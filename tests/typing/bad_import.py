"""Misspelt names: the lazy door must not make every name good."""

import chatsdk
from chatsdk import ChatClinet  # E: attr-defined
from chatsdk import Receipts  # E: attr-defined

chatsdk.events.MesageSent  # E: attr-defined
chatsdk.connect()  # E: attr-defined
