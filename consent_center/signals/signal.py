"""One signal as it arrived: its raw text, what it says, and its hash."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from consent_center.errors import ConsentError
from consent_center.signals.gpp import GppString, decode_gpp
from consent_center.signals.tcf import TcString, decode_tc

TCF, GPP, GPC = "iab-tcf", "iab-gpp", "gpc"


@dataclass(frozen=True)
class Signal:
    """A read signal. `kind` is TCF, GPP or GPC; the person's identifiers are no part of it."""

    kind: str
    raw: str = field(repr=False)
    tc: TcString | None = None
    gpp: GppString | None = None

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.raw.encode()).hexdigest()

    @property
    def updated(self) -> datetime | None:
        """When the person last said so, as far as the signal tells."""
        if self.tc is not None:
            return self.tc.last_updated
        if self.gpp is not None:
            section = self.gpp.sections.get("tcfcav1")
            return None if section is None else section["LastUpdated"]
        return None

    def to_json(self) -> dict[str, Any]:
        """What was understood."""
        body: dict[str, Any] = {"kind": self.kind, "sha256": self.sha256}
        if self.kind == TCF and self.tc is not None:
            body["tcf"] = self.tc.to_json()
        elif self.gpp is not None:
            body["gpp"] = self.gpp.to_json()
        else:
            body["gpc"] = True
        return body


def read_tcf(text: str) -> Signal:
    """A TC string. Raises ConsentError `signal.encoding`, `signal.value`, `signal.version`."""
    return Signal(TCF, text, tc=decode_tc(text))


def read_gpp(text: str) -> Signal:
    """A GPP string; its EU section, if any, is also there as `tc`. Raises as `read_tcf`."""
    decoded = decode_gpp(text)
    tc = decoded.sections.get("tcfeuv2")
    return Signal(GPP, text, tc=tc, gpp=decoded)


def read_gpc(header: str | bool | None) -> Signal | None:
    """The header `Sec-GPC` (or its value as a boolean): a signal for "1", None for absence.

    The specification knows the one value "1" (W3C Global Privacy Control, "The Sec-GPC Header Field"); others
    are to be ignored, and are: they are no consent either.
    """
    if header is True or (isinstance(header, str) and header.strip() == "1"):
        return Signal(GPC, "Sec-GPC: 1")
    return None


def read_any(text: str) -> Signal:
    """A TC or a GPP string, told apart by their first characters. Raises as `read_tcf`."""
    cleaned = text.strip() if isinstance(text, str) else text
    if not isinstance(cleaned, str) or not cleaned:
        raise ConsentError("signal.request", "give a TC string or a GPP string")
    if cleaned.lower().replace(" ", "") == "sec-gpc:1":
        return Signal(GPC, "Sec-GPC: 1")
    # A GPP header begins with type 3 (D) and version 1 (B); a TC string with version 2 (C).
    return read_gpp(cleaned) if "~" in cleaned or cleaned.startswith("D") else read_tcf(cleaned)


def read_request(tc_string: str = "", gpp_string: str = "", gpc: str | bool | None = None) -> list[Signal]:
    """What one request brings, at least one signal. ConsentError `signal.request`, and as `read_tcf`."""
    found = []
    if tc_string:
        found.append(read_tcf(tc_string))
    if gpp_string:
        found.append(read_gpp(gpp_string))
    control = read_gpc(gpc)
    if control is not None:
        found.append(control)
    if not found:
        raise ConsentError(
            "signal.request", "send tc_string, gpp_string, gpc (true), or the header Sec-GPC: 1"
        )
    return found
