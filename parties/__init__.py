"""The party node: identity, transport, agreements, gate, job stages, audit bundles. See README.md."""

__version__ = "0.1.0"

#: Version of the peer protocol. A node refuses a peer of another one.
PROTOCOL_VERSION = 1
