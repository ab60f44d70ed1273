"""Names in Chinese and English that pages and tables show for codes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Text = tuple[str, str]

KINDS: dict[str, Text] = {
    "overlap": ("隐私求交（计数）", "Overlap"),
    "lookalike": ("相似人群扩量", "Lookalike"),
    "enrich": ("标签增补", "Tag enrichment"),
    "retarget": ("重定向", "Retargeting"),
    "feature-report": ("特征报告", "Feature report"),
    "boost": ("联合提升树", "Boosted trees"),
    "joint-lr": ("联合回归", "Joint regression"),
    "score": ("按已有模型评分", "Scoring by a model"),
    "lead-score": ("线索评分", "Lead scoring"),
}
PARTIES: dict[str, Text] = {
    "brand": ("品牌方", "Brand"),
    "provider": ("数据方", "Provider"),
    "provider_a": ("数据方 A", "Provider A"),
    "provider_b": ("数据方 B", "Provider B"),
}
REASONS: dict[str, Text] = {
    "identifier_null": ("标识为空", "no identifier"),
    "identifier_invalid": ("标识无效", "invalid identifier"),
    "unreachable": ("同意中心无应答", "consent center did not answer"),
    "stale": ("同意状态不是最新", "consent state not up to date"),
    "purpose_inactive": ("目的已停用或未登记", "purpose switched off or unknown"),
    "recipient_inactive": ("接收方已停用", "recipient switched off"),
    "unknown_subject": ("从未征询", "never asked"),
    "restricted": ("已限制处理", "use restricted"),
    "minor_without_guardian": ("未成年且无监护人同意", "minor without a guardian"),
    "no_event": ("未就此目的征询", "not asked for this purpose"),
    "denied": ("拒绝", "denied"),
    "withdrawn": ("已撤回", "withdrawn"),
    "expired": ("已过期", "expired"),
    "outdated_notice": ("告知版本过旧", "outdated notice"),
    "recipient_out_of_scope": ("接收方不符", "recipient out of scope"),
    "category_out_of_scope": ("数据类别不符", "category out of scope"),
    "blocked_by_rule": ("规则禁止", "blocked by a rule"),
    "identifier_duplicate": ("标识重复", "duplicate identifier"),
    "identifier_conflict": ("一行的标识属于不同的人", "identifiers of different people in one row"),
    "withdrawn_midway": ("任务进行中撤回", "withdrew while the job ran"),
}
REFUSALS: dict[str, Text] = {
    "no_consent": ("无人同意的目的", "a purpose that nobody consented to"),
    "no_agreement": ("没有协议的任务", "a job without an agreement"),
    "tag_not_agreed": ("未约定的标签", "a tag that was not agreed"),
    "less_privacy": ("要求少于约定的隐私保护", "less privacy than agreed"),
}
# What each side learns, in the words of DESIGN section 7, for a job that does not carry its own declaration.
LEARNED: dict[str, dict[str, list[Text]]] = {
    "overlap": {
        "brand": [("重合人数（取整）", "how many are shared, rounded")],
        "provider": [("补齐后的集合大小", "the padded size of the brand's set")],
    },
    "lookalike": {
        "brand": [
            ("按行号的得分", "a score by row number"),
            ("自有种子是否匹配", "which of its own seeds matched"),
            ("质量指标", "the quality figures"),
        ],
        "provider": [
            ("补齐后的种子数", "the padded number of seeds"),
            ("特征与标签的内积 z", "z, the products of its features with the labels"),
            ("自己的模型", "its own model"),
        ],
    },
    "retarget": {
        "brand": [("可触达人数（取整）", "how many can be addressed, rounded")],
        "provider": [("要触达己方的哪些用户", "which of its users to address")],
    },
    "enrich": {
        "brand": [("约定的标签", "the agreed tags of the people it may ask about")],
        "provider": [("被询问的人数（补齐）", "how many were asked, padded")],
    },
}


def kind(code: str) -> Text:
    return KINDS.get(code, (code, code))


def party(code: str, fallback: str | None = None) -> Text:
    name = fallback or code
    return PARTIES.get(code, (name, name))


def reason(code: str) -> Text:
    words = code.replace("_", " ")
    return REASONS.get(code, (words, words))


def learned(job: Mapping[str, Any]) -> dict[str, list[Text]]:
    """What each side learned: the job's own declaration, pairs (zh, en), when it has one."""
    own = job.get("learned")
    known = LEARNED.get(str(job.get("kind")), {})
    if not own:
        return known
    return {side: [(str(zh), str(en)) for zh, en in lines] for side, lines in own.items()}


def count(n: Any) -> str:
    return "–" if n is None else f"{n:,}"


def bytes_text(n: float | None) -> str:
    """1536 → `1.5 KB`; powers of 1,000, as network people count."""
    if n is None:
        return "–"
    size = float(n)
    for unit in ("B", "KB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.2f} GB"


def seconds_text(s: float | None) -> str:
    return "–" if s is None else f"{s:.1f} s" if s < 100 else f"{s:.0f} s"


def ratio_text(x: float | None, digits: int = 4) -> str:
    return "–" if x is None else f"{x:.{digits}f}"
