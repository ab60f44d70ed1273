"""The OpenAPI document's finish, and /docs: the same document as one page that loads nothing else."""

from __future__ import annotations

import json
from typing import Any

from flask import current_app, render_template
from markupsafe import Markup, escape

from consent_center.errors import CODES
from consent_center.rest import problems, wire

INTRODUCTION = (
    "Who agreed to what, decided for millions at once, and provable afterwards. Every call but the health "
    "check needs the header `Authorization: Bearer …` with the content of the file `rest.token` in the "
    "center's directory. Errors are problem details (RFC 9457) whose `code` stands in docs/errors.md."
)

_CSV = (
    "phone,purpose,purpose_version,notice,notice_version,action,recipient,categories,occurred_at\n"
    "13800138000,ads,1,ads-text,1,granted,provider-a,contract;usage,2026-03-01T08:00:00+08:00\n"
)
#: Bodies that are no plain JSON object, by path: media type -> (schema, example).
_BODIES: dict[str, dict[str, dict[str, Any]]] = {
    "/v1/events/batch": {
        "text/csv": {"schema": {"type": "string"}, "example": _CSV},
        "application/x-ndjson": {"schema": {"type": "string"}},
        "application/json": {
            "schema": {"type": "array", "items": {"$ref": "#/components/schemas/Event"}},
        },
    },
    **{
        path: {wire.ARROW: {"schema": {"type": "string", "format": "binary"}}}
        for path in ("/v1/decisions/bulk", "/v1/snapshots", "/v1/assumptions/bulk", "/v1/events/bulk")
    },
}
_PROBLEM = {
    "type": "object",
    "description": "Problem details (RFC 9457).",
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string", "description": "What the code means."},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "What is wrong, where, and what to do."},
        "instance": {"type": "string", "description": "The path that was called."},
        "code": {"type": "string", "enum": sorted(CODES)},
    },
}


def complete(spec: Any) -> Any:
    """Adds what the framework can't know: raw bodies, the security of each call, one shape for all errors."""
    paths = spec["paths"] if isinstance(spec, dict) else spec.to_dict()["paths"]
    spec["components"].setdefault("schemas", {})["Problem"] = _PROBLEM
    for path, item in paths.items():
        for method, call in item.items():
            if path in _BODIES and method == "post":
                call["requestBody"] = {"required": True, "content": _BODIES[path]}
            call["security"] = [] if path == "/v1/health" else [{"token": []}]
            responses = {k: v for k, v in call.get("responses", {}).items() if str(k).startswith("2")}
            responses["default"] = {
                "description": "A problem",
                "content": {problems.MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
            }
            call["responses"] = responses
    return spec


def view() -> str:
    """The page."""
    spec: dict[str, Any] = json.loads(json.dumps(current_app.spec))  # type: ignore[attr-defined]
    groups: dict[str, list[dict[str, Any]]] = {}
    for path, item in spec["paths"].items():
        for method, call in item.items():
            shown = {
                "id": f"{method}-{path.strip('/').replace('/', '-').replace('{', '').replace('}', '')}",
                "method": method.upper(),
                "path": path,
                "summary": call.get("summary", ""),
                "text": call.get("description", ""),
                "open": not call["security"],
                "parameters": call.get("parameters", []),
                "bodies": [
                    _body(spec, k, v) for k, v in call.get("requestBody", {}).get("content", {}).items()
                ],
                "answers": [
                    _body(spec, f"{status} {kind}", media)
                    for status, response in call["responses"].items()
                    if status != "default"
                    for kind, media in (response.get("content") or {"": {}}).items()
                ],
            }
            groups.setdefault((call.get("tags") or ["Other"])[0], []).append(shown)
    for calls in groups.values():
        calls.sort(key=lambda call: (str(call["path"]), str(call["method"])))
    return render_template(
        "pec_docs.html", info=spec["info"], groups=groups, codes=sorted(CODES.items()), marked=_marked
    )


def _marked(text: str) -> Markup:
    """Escaped, with what stands between backticks as code."""
    parts = [
        escape(p) if i % 2 == 0 else Markup("<code>{}</code>").format(p)
        for i, p in enumerate(text.split("`"))
    ]
    return Markup("").join(parts)


def _body(spec: dict[str, Any], kind: str, media: dict[str, Any]) -> dict[str, Any]:
    schema = media.get("schema", {})
    many = schema.get("type") == "array"
    schema = _resolve(spec, schema.get("items", {}) if many else schema)
    required = set(schema.get("required", []))
    rows = [
        {
            "name": name,
            "type": _type(_resolve(spec, field)),
            "required": name in required,
            "text": field.get("description", ""),
        }
        for name, field in schema.get("properties", {}).items()
    ]
    return {"kind": kind, "many": many, "rows": rows, "example": media.get("example", "")}


def _resolve(spec: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    name = schema.get("$ref", "").removeprefix("#/components/schemas/")
    return spec["components"]["schemas"].get(name, schema) if name else schema


def _type(schema: dict[str, Any]) -> str:
    kind = schema.get("type", "any")
    kind = " or ".join(kind) if isinstance(kind, list) else str(kind)
    if kind == "array":
        return f"list of {schema.get('items', {}).get('type', 'objects')}"
    known = schema.get("enum")
    return " | ".join(str(k) for k in known) if known else schema.get("format", kind)
