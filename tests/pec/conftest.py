"""Files for the command line's tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest


@pytest.fixture(scope="session")
def two_files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A brand of 500 with a label, a provider of 600 with numbers, categories and gaps; 400 in both.

    The provider's is as files are: a byte-order mark, semicolons, blanks in the header, other spellings.
    """
    folder = tmp_path_factory.mktemp("files")
    rng = np.random.default_rng(4)
    numbers = 13_800_000_000 + rng.permutation(700)
    x = rng.normal(size=700)
    loyal = rng.random(700) < 1 / (1 + np.exp(-2 * x))
    brand = pd.DataFrame({"Phone": numbers[:500], "loyal": np.where(loyal[:500], "yes", "no"), "spend": 1.5})
    brand.to_csv(folder / "brand.csv", index=False)
    held = slice(100, 700)
    provider = pd.DataFrame(
        {
            " phone ": [f"+86 {n}" for n in numbers[held]],
            "score": np.where(rng.random(600) < 0.05, "", np.round(x[held], 4).astype(str)),
            "城市": rng.choice(["北京", "上海", "N/A"], 600),
            "constant": 1,
        }
    )
    text = provider.to_csv(index=False, sep=";")
    (folder / "provider.csv").write_text("\ufeff" + text, encoding="utf-8")
    return folder / "brand.csv", folder / "provider.csv"
