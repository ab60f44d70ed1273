"""What a record of each kind has, with the article that asks for it and its names in Chinese and English.

processing   the register of processing activities (GDPR 30(1); PIPL 51, 54, 56)
agreement    contracts with processors, recipients, joint controllers (PIPL 20, 21, 23; GDPR 26, 28)

Assessments (PIPL 55, 56) are in the registry, because decisions depend on them; their columns stand here too.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import Any

from consent_center.errors import ConsentError
from consent_center.registry import is_name

#: When a reminder comes, in days before the end.
REMIND_DAYS = 30
_MAX_TEXT, _MAX_LIST = 5_000, 200


@dataclass(frozen=True)
class Field:
    """`kind`: text, list, date; `lapses`: reminders look at this date."""

    name: str
    zh: str
    en: str
    source: str = ""
    kind: str = "text"
    required: bool = False
    lapses: bool = False


FIELDS: dict[str, tuple[Field, ...]] = {
    "processing": (
        Field("name", "处理活动", "Activity", "GDPR 30(1)", required=True),
        Field(
            "controller_contact",
            "个人信息处理者及联系方式",
            "Controller and contact",
            "GDPR 30(1)(a); PIPL 17",
        ),
        Field("dpo_contact", "个人信息保护负责人", "Data protection officer", "GDPR 30(1)(a); PIPL 52"),
        Field("purposes", "处理目的", "Purposes", "GDPR 30(1)(b)", "list", required=True),
        Field("legal_basis", "合法性基础", "Legal basis", "PIPL 13; GDPR 6", required=True),
        Field("subjects", "个人类别", "Categories of people", "GDPR 30(1)(c)", "list", required=True),
        Field("categories", "个人信息类别", "Categories of data", "GDPR 30(1)(c)", "list", required=True),
        Field("sensitive", "敏感个人信息", "Sensitive data", "PIPL 28; GDPR 9", "list"),
        Field("recipients", "接收方类别", "Recipients", "GDPR 30(1)(d); PIPL 23", "list", required=True),
        Field(
            "third_countries",
            "境外提供与保障措施",
            "Transfers abroad and safeguards",
            "GDPR 30(1)(e); PIPL 38",
        ),
        Field("retention", "保存期限", "Time limits for erasure", "GDPR 30(1)(f); PIPL 19", required=True),
        Field("security", "安全措施", "Security measures", "GDPR 30(1)(g), 32; PIPL 51", required=True),
        Field("systems", "信息系统", "Systems", "", "list"),
        Field("owner", "责任部门", "Responsible unit"),
        Field("review_on", "下次复核", "Next review", "", "date", lapses=True),
    ),
    "agreement": (
        Field("title", "协议名称", "Title", "", required=True),
        Field("party", "对方", "Other party", "PIPL 21, 23; GDPR 28", required=True),
        Field("role", "对方角色", "Its role", "PIPL 20, 21, 23; GDPR 26, 28", required=True),
        Field("purposes", "目的", "Purposes", "PIPL 21; GDPR 28(3)", "list", required=True),
        Field(
            "categories", "个人信息类别", "Categories of data", "PIPL 21; GDPR 28(3)", "list", required=True
        ),
        Field("reference", "文件存放处", "Where the document is kept", "", required=True),
        Field("sha256", "文件哈希", "SHA-256 of the document"),
        Field("signed_on", "签署日期", "Signed on", "", "date", required=True),
        Field("expires_on", "到期日", "Expires on", "PIPL 21", "date", lapses=True),
        Field("owner", "责任部门", "Responsible unit"),
    ),
    "assessment": (
        Field("purpose", "目的", "Purpose", "PIPL 55", required=True),
        Field("recipient", "接收方", "Recipient", "PIPL 55(3)"),
        Field("reference", "报告存放处", "Where the report is kept", "PIPL 56", required=True),
        Field("hash", "报告哈希", "SHA-256 of the report"),
        Field("approved_on", "批准日期", "Approved on", "", "date"),
        Field("valid_until", "有效期至", "Valid until", "", "date", lapses=True),
        Field("status", "状态", "Status"),
    ),
}
#: Kinds that are kept in the table of records.
KINDS = ("processing", "agreement")
TITLES: dict[str, tuple[str, str]] = {
    "processing": ("个人信息处理活动记录", "Register of processing activities"),
    "agreement": ("协议登记", "Register of agreements"),
    "assessment": ("个人信息保护影响评估", "Impact assessments"),
}


def check_kind(kind: str, known: tuple[str, ...] = KINDS) -> str:
    if kind not in known:
        raise ConsentError("record.field", f"kind {str(kind)[:40]!r} is none of {', '.join(known)}")
    return kind


def check(kind: str, id: str, body: Any) -> dict[str, Any]:
    """The record as it is stored: known fields only, empty ones left out; ConsentError `record.field`."""
    check_kind(kind)
    if not is_name(id):
        raise ConsentError("record.field", "the id is a name without blanks or , ; | * +")
    if not isinstance(body, dict):
        raise ConsentError("record.field", "a record is an object of fields")
    fields = {field.name: field for field in FIELDS[kind]}
    for name in body:
        if name not in fields:
            raise ConsentError(
                "record.field", f"{kind} has no field {str(name)[:60]!r}; it has {', '.join(fields)}"
            )
    found: dict[str, Any] = {}
    for name, field in fields.items():
        value = body.get(name)
        if value in (None, "", [], ()):
            if field.required:
                raise ConsentError("record.field", f"{name} is needed ({field.en}; {field.source or kind})")
            continue
        found[name] = _value(field, value)
    return found


def _value(field: Field, value: Any) -> Any:
    if field.kind == "list":
        items = value if isinstance(value, list | tuple) else [value]
        if len(items) > _MAX_LIST or not all(_is_text(item) for item in items):
            raise ConsentError("record.field", f"{field.name} is a list of up to {_MAX_LIST} texts")
        return list(items)
    if not _is_text(value):
        raise ConsentError("record.field", f"{field.name} is a text of 1 to {_MAX_TEXT:,} characters")
    return day(field.name, value) if field.kind == "date" else value


def _is_text(value: Any) -> bool:
    clean = isinstance(value, str) and 0 < len(value) <= _MAX_TEXT
    return clean and not any(c == "\0" or 0xD800 <= ord(c) <= 0xDFFF for c in value)


def day(name: str, value: str) -> str:
    """An ISO date; ConsentError `record.field`."""
    try:
        return date.fromisoformat(value).isoformat()
    except ValueError:
        raise ConsentError("record.field", f"{name} {value[:40]!r} is no date like 2026-03-01") from None
