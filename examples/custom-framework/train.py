"""Trains a small regressor on scikit-learn's diabetes data: train.py MODEL_FOLDER."""

import json
import sys
from pathlib import Path

import lightgbm as lgb
from sklearn.datasets import load_diabetes


def main(folder: str) -> None:
    rows, target = load_diabetes(return_X_y=True)
    settings = {"objective": "regression", "num_leaves": 15, "num_threads": 1, "verbose": -1, "seed": 1}
    booster = lgb.train(settings, lgb.Dataset(rows, label=target), num_boost_round=50)
    path = Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    booster.save_model(path / "model.txt")
    print(json.dumps({"row": rows[0].tolist(), "prediction": booster.predict(rows[:1])[0]}))


if __name__ == "__main__":
    main(sys.argv[1])
