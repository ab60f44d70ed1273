"""The party node: identity, transport, agreements, gate, job stages, audit bundles. See README.md."""

__version__ = "0.1.0"

#: Version of the peer protocol. A node refuses a peer of another one.
PROTOCOL_VERSION = 2

#: Version of a party's card, its field `protocol`: cards outlive changes of the peer protocol.
CARD_VERSION = 1
