"""A lookalike and a joint forest between a brand and a provider, on data that scikit-learn brings along.

    python examples/lookalike_and_boost.py

Nothing is fetched from anywhere. Two throw-away nodes run on this machine; consent is assumed and recorded
so. The data are 569 tumours with 30 measurements: the "brand" knows the diagnosis and six of them, the
"provider" 24.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import roc_auc_score

from pec.vertical import LookalikeModel, VerticalGradientBoosting

WHY = "a public data set without people"


def split() -> tuple[pd.DataFrame, np.ndarray, pd.DataFrame]:
    """(the brand's table with ids, its label, the provider's table in another order)."""
    frame = load_breast_cancer(as_frame=True).frame
    label = (frame.pop("target") == 0).to_numpy()
    frame.insert(0, "person", [f"p{i:04d}" for i in range(len(frame))])
    brand, provider = frame.iloc[:, :7], frame.drop(columns=frame.columns[1:7])
    return brand, label, provider.sample(frac=1, random_state=1)


def main() -> dict[str, float]:
    brand, malignant, provider = split()
    common = {"id": "person", "assume_consent": WHY, "random_state": 1}

    print("1. Who at the provider is like the brand's cases? The provider learns no label.")
    seeds = malignant & (np.arange(len(brand)) % 2 == 0)
    lookalike = LookalikeModel(provider, audience_size=50, **common).fit(brand, seeds)
    print(f"   AUC of the cases held out: {lookalike.auc_:.3f}; audience of {len(lookalike.audience_)}")

    print("2. One forest on columns of both sides, tried on people whom it has not seen.")
    train = np.arange(len(brand)) % 3 != 0
    forest = VerticalGradientBoosting(provider, trees=20, depth=3, learning_rate=0.3, **common)
    forest.fit(brand[train], malignant[train])
    chance = forest.predict_proba(brand[~train])[:, 1]
    together = roc_auc_score(malignant[~train], chance)

    print("3. What the brand reaches alone, with the same trees.")
    alone = HistGradientBoostingClassifier(max_iter=20, max_depth=3, learning_rate=0.3)
    alone.fit(brand[train].drop(columns="person"), malignant[train])
    single = alone.predict_proba(brand[~train].drop(columns="person"))[:, 1]
    lonely = roc_auc_score(malignant[~train], single)
    print(f"   AUC together {together:.4f}, alone {lonely:.4f}")

    print("4. Columns that mattered most:")
    for _, column in forest.columns_.head(5).iterrows():
        print(f"   {column['column']} ({column['side']}): {column['gain']:.1f}")
    print(f"Model card: {forest.card_}")
    return {"lookalike": lookalike.auc_, "together": together, "alone": lonely}


if __name__ == "__main__":
    main()
