"""Trains two small churn models and writes what the walk of docs/deploy.md needs.

churn-model/model.pkl   a pickled scikit-learn pipeline
models/                 a second one, already an archive
payload.csv             a request of two rows
"""

import io
import pickle
import tarfile
from pathlib import Path

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

rng = np.random.default_rng(7)
rows = rng.normal(size=(500, 3)).round(3)


def trained(noise):
    churned = rows @ [1.0, -2.0, 0.5] + rng.normal(scale=noise, size=len(rows)) > 0
    return make_pipeline(StandardScaler(), LogisticRegression()).fit(rows, churned.astype(int))


Path("churn-model").mkdir(exist_ok=True)
Path("churn-model/model.pkl").write_bytes(pickle.dumps(trained(noise=0.1)))

Path("models").mkdir(exist_ok=True)
content = pickle.dumps(trained(noise=2.0))
with tarfile.open("models/churn-eu.tar.gz", "w:gz") as archive:
    member = tarfile.TarInfo("model.pkl")
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))

np.savetxt("payload.csv", rows[:2], delimiter=",", fmt="%g")
