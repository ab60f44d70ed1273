"""The demonstration's files: deterministic, messy where it was promised, and true underneath."""

from __future__ import annotations

import datetime as dt
import hashlib
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pec.demo import data

NOW = dt.datetime(2026, 11, 22, 12, 0, tzinfo=dt.UTC)
PURPOSES = [
    data.Purpose("lookalike", 1, "n-lookalike", 1, ("household",)),
    data.Purpose("enrich", 1, "n", 2, ("x",)),
]
IDS = {party: f"{party}-co" for party in data.PARTIES}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> data.DemoData:
    return data.generate(tmp_path_factory.mktemp("demo"), purposes=PURPOSES, ids=IDS, now=NOW)


def _digits(phone: object) -> str:
    digits = re.sub(r"\D", "", str(phone))
    return digits.removeprefix("00").removeprefix("86") if len(digits) > 11 else digits


def read(path: Path) -> pd.DataFrame:
    return (
        pd.read_parquet(path)
        if path.suffix == ".parquet"
        else pd.read_csv(path, dtype={"phone": str}, keep_default_na=False, na_values=[""])
    )


def test_same_seed_same_bytes_other_seed_other_bytes(made: data.DemoData, tmp_path: Path) -> None:
    def digest(d: data.DemoData) -> list[str]:
        paths = [*d.files.values(), *d.consent.values(), d.leads]
        return [hashlib.sha256(p.read_bytes()).hexdigest() for p in paths]

    again = data.generate(tmp_path / "again", purposes=PURPOSES, ids=IDS, now=NOW)
    other = data.generate(tmp_path / "other", purposes=PURPOSES, ids=IDS, now=NOW, seed=8)
    assert digest(made) == digest(again)
    assert not set(digest(made)) & set(digest(other))


def test_numbers_are_distinct_mobile_numbers(made: data.DemoData) -> None:
    assert len(set(made.phones)) == len(made.people) == 7043
    assert all(re.fullmatch(r"1[3-9]\d{9}", p) for p in made.phones)


def test_each_party_has_its_columns_and_part_of_the_people(made: data.DemoData) -> None:
    for party in data.PARTIES:
        frame = read(made.files[party])
        extra = ["loyal"] if party == data.BRAND else []
        assert list(frame.columns) == ["phone", *data.COLUMNS[party], *extra]
        assert 0.7 < made.held[party].mean() < 0.9
    b, a = made.held[data.BRAND], made.held[data.PROVIDER_A]
    assert (b & a).any() and (b & ~a).any() and (a & ~b).any()


def test_spellings_duplicates_nulls_and_invalid_numbers(made: data.DemoData) -> None:
    for party in data.PARTIES:
        frame, held = read(made.files[party]), int(made.held[party].sum())
        spelled = frame["phone"].dropna().astype(str)
        clean = spelled.map(_digits)
        good = clean[clean.str.fullmatch(r"1[3-9]\d{9}")]
        assert good.nunique() == held, "spoiling must lose nobody"
        assert len(good) - good.nunique() == held // 100
        assert frame["phone"].isna().sum() + (frame["phone"] == "").sum() == held // 125
        assert len(clean) - len(good) - (spelled == "").sum() == held // 150
        for style in (r"\+86 \d{3} \d{4} \d{4}", r"0086-\d{11}", r"\d{11}", r"\d{11} +"):
            assert spelled.str.fullmatch(style).any(), (party, style)


def test_rows_carry_the_values_of_their_people(made: data.DemoData) -> None:
    for party in data.PARTIES:
        truth, frame = data.truth(made, party), read(made.files[party])
        rows = frame.dropna(subset=["phone"])
        checked = 0
        for phone, row in zip(rows["phone"].map(_digits), rows.to_dict("records"), strict=True):
            if phone not in truth:
                continue
            for column in data.COLUMNS[party]:
                assert (
                    row[column] == truth[phone][column]
                    or pd.isna(row[column])
                    and pd.isna(truth[phone][column])
                )
            checked += 1
        assert checked >= made.held[party].sum()


def test_consent_has_every_fate_and_its_events(made: data.DemoData) -> None:
    for party, recipients in made.fates.items():
        events = pd.read_csv(made.consent[party], dtype=str, keep_default_na=False)
        assert list(events.columns) == data.CONSENT_COLUMNS
        assert events["occurred_at"].is_monotonic_increasing
        for recipient, fates in recipients.items():
            assert set(data.FATES) | {"not_held", "minor"} == set(fates)
            assert 0.8 < np.mean(fates[made.held[party]] == "granted") < 0.9
            mine = events[(events["recipient"] == IDS[recipient]) & (events["purpose"] == "lookalike")]
            actions = mine.groupby("phone")["action"].agg(list)
            for fate, expected in {
                "granted": ["granted"],
                "denied": ["denied"],
                "withdrawn": ["granted", "withdrawn"],
            }.items():
                for phone in made.phones[fates == fate]:
                    assert actions[phone] == expected
            silent = made.phones[np.isin(fates, ["never_asked", "wrong_recipient", "not_held"])]
            assert not set(silent) & set(actions.index)
            expired = mine[mine["phone"].isin(made.phones[fates == "expired"])]
            assert (expired["expires_at"] < NOW.strftime("%Y-%m-%d")).all() and len(expired)
            minors = mine[mine["phone"].isin(made.phones[fates == "minor"])]
            assert (minors["birth_date"] == "2016-06-01").all() and len(minors)


def test_leads_are_customers(made: data.DemoData) -> None:
    leads = pd.read_csv(made.leads, dtype=str)
    assert leads["phone"].map(_digits).tolist() == made.phones[made.lead_people].tolist()
    assert made.held[data.BRAND][made.lead_people].all()


def test_seeds_are_loyal_customers(made: data.DemoData) -> None:
    loyal = data.loyal(made.people)
    chosen = made.people[loyal]
    assert (chosen["tenure"] >= 24).all() and (chosen["churn"] == "No").all()
    assert "Month-to-month" not in set(chosen["contract"]) and 2000 < loyal.sum() < 3000
