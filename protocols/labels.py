"""The one builder of domain-separation labels.

    label("align", "sender", "tag", session) = "PEC-v1" ‖ len‖"align" ‖ len‖"sender" ‖ len‖"tag" ‖ len‖session

Every part is preceded by its length as two bytes, so two different tuples can't give the same label.
"""

from __future__ import annotations

from protocols.errors import LocalError

VERSION = b"PEC-v1"


def label(protocol: str, role: str, usage: str, session: bytes = b"") -> bytes:
    """Bytes that bind version, protocol, role, usage and session; parts up to 65,535 bytes each."""
    out = bytearray(VERSION)
    for part in (protocol.encode(), role.encode(), usage.encode(), session):
        if len(part) > 0xFFFF:
            raise LocalError("protocol.argument", f"a label's part has {len(part)} bytes, 65535 allowed")
        out += len(part).to_bytes(2, "big") + part
    return bytes(out)
