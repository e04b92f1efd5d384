"""LightGBM behind mmekit: what the subclass inherits reads and writes CSV, JSON and NPY."""

from pathlib import Path

import lightgbm as lgb

from mmekit.errors import BadRequest, InvalidModel
from mmekit_handlers.base import Handler


class LightGBMHandler(Handler):
    # n stacked rows predict the same as n single rows: requests that wait may go in one call.
    row_wise = True

    @classmethod
    def warm_up(cls):
        data = lgb.Dataset([[0.0], [1.0]] * 20, label=[0.0, 1.0] * 20)
        lgb.train({"num_threads": 1, "verbose": -1}, data, num_boost_round=1).predict([[0.0]], num_threads=1)

    def model_fn(self, model_dir):
        files = sorted(Path(model_dir).glob("*.txt"))
        if len(files) != 1:
            raise InvalidModel(f"expected one booster, *.txt, in the model folder; found {len(files)}")
        return lgb.Booster(model_file=str(files[0]))

    def predict_fn(self, data, model, context):
        if data.ndim != 2 or data.shape[1] != model.num_feature():
            raise BadRequest(
                f"the model has {model.num_feature()} features, the request's shape is {data.shape}"
            )
        return model.predict(data, num_threads=1)
