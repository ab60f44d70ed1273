"""The consent center's REST interface, as an organisation's own systems call it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import requests

from pec.errors import PecError

SECONDS = 120.0


class ConsentRest:
    """One center at `url`. `token_file` holds the bearer token; its owner alone can read it."""

    def __init__(self, url: str, token_file: Path) -> None:
        self._url = url.rstrip("/")
        self._session = requests.Session()
        # No proxy of the environment stands between two ends of one machine.
        self._session.trust_env = False
        self._session.headers["Authorization"] = f"Bearer {token_file.read_text(encoding='ascii').strip()}"

    def upload(self, path: Path) -> dict[str, Any]:
        """Import a CSV of events; the report: read, recorded, rejected, errors."""
        with path.open("rb") as file:
            return self._post("/v1/events/batch", data=file, headers={"Content-Type": "text/csv"})

    def withdraw(self, phone: str, purpose: str, recipient: str) -> dict[str, Any]:
        """Record that the person with this number withdraws."""
        body = {"phone": phone, "purpose": purpose, "recipient": recipient, "channel": "app"}
        return self._post("/v1/withdrawals", json=body)

    def _post(self, path: str, **what: Any) -> dict[str, Any]:
        try:
            answer = self._session.post(self._url + path, timeout=SECONDS, **what)
        except requests.RequestException as error:
            raise PecError(
                "pec.node", f"the consent center at {self._url} does not answer: {error}"
            ) from None
        if answer.status_code >= 400:
            raise PecError("pec.node", f"{path}: {answer.status_code}: {answer.text[:400]}")
        return dict(answer.json())
