"""What a call needs of the running application: the center, who asks, and how to answer."""

from __future__ import annotations

from typing import Any

from flask import Response, current_app, jsonify, request

from consent_center.client import CenterClient
from consent_center.rest import token

CENTER, TOKEN = "pec.center", "pec.token"


def center() -> CenterClient:
    """The center that the running application serves."""
    found: CenterClient = current_app.extensions[CENTER]
    return found


def authorised() -> bool:
    return token.matches(request.headers.get("Authorization"), current_app.extensions[TOKEN])


def answer(data: Any, status: int = 200) -> Response:
    response = jsonify(data)
    response.status_code = status
    return response
