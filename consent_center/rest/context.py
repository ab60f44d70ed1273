"""What a call needs of the running application: the center, its own token, and how to answer."""

from __future__ import annotations

from typing import Any

from flask import Request, Response, current_app, jsonify

from consent_center.client import CenterClient
from consent_center.rest import token
from consent_center.rest.roles import Principal

CENTER, TOKEN = "pec.center", "pec.token"
#: What the holder of the service token may do.
SERVICE_ROLE = "admin"


def center() -> CenterClient:
    """The center that the running application serves."""
    found: CenterClient = current_app.extensions[CENTER]
    return found


def service_token(asked: Request) -> Principal | None:
    """The holder of the service token: the center's own machines, and who may read its directory."""
    header = asked.headers.get("Authorization")
    if token.matches(header, current_app.extensions[TOKEN]):
        return Principal("rest.token", SERVICE_ROLE, "service token")
    return None


def answer(data: Any, status: int = 200) -> Response:
    response = jsonify(data)
    response.status_code = status
    return response
