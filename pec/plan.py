"""Terms of agreements and requests of jobs as plain JSON, and purposes with their notices in a consent
center.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any

from parties import documents

KINDS = ("overlap", "lookalike", "enrich", "retarget")
#: Kinds that learn from the brand's labels with columns of both sides.
SUPERVISED = ("boost", "joint-lr", "feature-report", "lead-score")
#: Kinds that run only under an agreement without noise.
NOISELESS = ("boost", "joint-lr", "lead-score", "score")
OUTPUTS = {
    "overlap": {"count": "brand"},
    "lookalike": {"scores": "brand", "audience": "brand", "seeds": "brand"},
    "enrich": {"tags": "brand"},
    "retarget": {"audience": "provider", "size": "brand"},
    "boost": {"scores": "brand"},
    "joint-lr": {"scores": "brand"},
    "feature-report": {"report": "brand"},
    "lead-score": {"scores": "brand"},
    "score": {"scores": "brand"},
}
#: Other ways to the same result, by kind; what they give out and to whom.
METHODS: dict[str, dict[str, dict[str, str]]] = {
    "overlap": {"align": {"count": "brand"}, "private_join": {"count": "both"}}
}
#: What the purposes are called, and what people are told, where nobody registered others (demo, simulate,
# bench).
PURPOSES: dict[str, dict[str, str]] = {
    "overlap": {"zh": "与合作方比较共同客户的数量", "en": "Count customers shared with a partner"},
    "lookalike": {"zh": "与合作方共同寻找相似人群", "en": "Find people similar to customers, with a partner"},
    "enrich": {"zh": "由合作方补充约定的标签", "en": "Add agreed tags from a partner"},
    "feature-report": {
        "zh": "了解合作方哪些数据有助于评分（仅统计）",
        "en": "Learn which of a partner's data would help (counts only)",
    },
    "retarget": {"zh": "由媒体向您展示品牌的内容", "en": "Let a media partner show you the brand's messages"},
    "boost": {"zh": "与合作方共同训练评分模型（树模型）", "en": "Score customers with a partner, by trees"},
    "joint-lr": {"zh": "与合作方共同建立评分模型", "en": "Build a scoring model together with a partner"},
    "lead-score": {"zh": "与合作方共同为销售线索评分", "en": "Score leads together with a partner"},
}
NOTICE_TEXT = {
    "zh": "{title}。您的数据不会离开各自的公司，仅交换加密信息。您可随时撤回同意。",
    "en": "{title}. Your data stays where it is; only encrypted messages travel. Withdraw at any time.",
}


def notice_id(purpose: str) -> str:
    return f"notice-{purpose}"


def register_purposes(
    center: Any, categories: Sequence[str], titles: Mapping[str, dict[str, str]] = PURPOSES
) -> None:
    """Put the purposes and one notice each into a consent center; doing it again changes nothing."""
    from consent_center.model import Notice, Purpose

    for id_, title in titles.items():
        center.put_purpose(Purpose(id=id_, version=1, title=title, categories=tuple(categories)), actor="pec")
        text = {language: NOTICE_TEXT[language].format(title=title[language]) for language in title}
        center.put_notice(
            Notice(id=notice_id(id_), version=1, purpose=id_, purpose_version=1, text=text), actor="pec"
        )


def terms(
    *,
    id: str,
    brand: str,
    provider: str,
    categories: Iterable[str],
    kinds: Iterable[str] = (*KINDS, *SUPERVISED),
    purposes: Iterable[str] = tuple(PURPOSES),
    columns: Iterable[str] = ("*",),
    tags: Iterable[str] = (),
    epsilon: float | None = 2.0,
    delta: float = 1e-6,
    clip: float = 5.0,
    total: tuple[float, float] | None = None,
    minimum_seeds: int = 100,
    minimum_rows: int = 100,
    preapproved: Iterable[str] = (),
    suites: Iterable[str] = ("ecdh",),
    sums: Iterable[str] = (),
    malicious_security: bool = False,
    standard_errors: bool = False,
    assessment: str = "",
    holds: timedelta = timedelta(days=365),
) -> dict[str, Any]:
    """The terms of an agreement, unsigned. `epsilon` None asks for no noise; δ and the clip go with ε.
    `total`: (ε, δ) of all jobs together, None to count without a limit.
    """
    created = documents.now()
    agreement = documents.Agreement(
        id=id,
        brand=brand,
        provider=provider,
        kinds=tuple(kinds),
        purposes=tuple(purposes),
        categories=tuple(categories),
        columns=tuple(columns),
        tags=tuple(tags),
        minimum_seeds=minimum_seeds,
        minimum_rows=minimum_rows,
        privacy=None if epsilon is None else documents.Privacy(epsilon=epsilon, delta=delta, clip=clip),
        preapproved=tuple(preapproved),
        suites=tuple(suites),
        sums=tuple(sums),
        malicious_security=malicious_security,
        standard_errors=standard_errors,
        privacy_total=None if total is None else documents.PrivacyTotal(epsilon=total[0], delta=total[1]),
        impact_assessment=assessment,
        created_at=documents.timestamp(created),
        expires_at=documents.timestamp(created + holds),
    )
    agreement.validate()
    return agreement.to_json()


def outputs(kind: str, params: Mapping[str, Any]) -> dict[str, str]:
    """What a job of this kind, by the method of its parameters, gives out and to whom."""
    return METHODS.get(kind, {}).get(str(params.get("method")), OUTPUTS.get(kind, {}))


def request(
    kind: str,
    *,
    provider: str,
    agreement: str,
    datasets: tuple[str, str],
    categories: Iterable[str],
    purpose: str | None = None,
    columns: Iterable[str] = (),
    params: Mapping[str, Any] | None = None,
    private: Mapping[str, Any] | None = None,
    hold_before: str | None = None,
) -> dict[str, Any]:
    """What `NodeClient.submit` takes. `datasets`: the brand's and the provider's; `private` stays at the
    brand.
    """
    made: dict[str, Any] = {
        "kind": kind,
        "peer": provider,
        "agreement": agreement,
        "purpose": purpose or kind,
        "datasets": {"brand": datasets[0], "provider": datasets[1]},
        "categories": list(categories),
        "columns": list(columns),
        "params": dict(params or {}),
        "outputs": outputs(kind, params or {}),
        "private": dict(private or {}),
    }
    if hold_before is not None:
        made["hold_before"] = hold_before
    return made
