"""XGBoost: boosters and scikit-learn wrappers from files; CSV, libsvm, recordio, JSON and npy in.

Follows AWS's container (aws/sagemaker-xgboost-container, algorithm mode); where it differs on
purpose, ``docs/behaviour.md`` says so.
"""

from __future__ import annotations

import logging
from collections.abc import Hashable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import scipy.sparse
import xgboost as xgb

from mmekit.errors import BadRequest, ConfigError, UnsupportedMediaType
from mmekit_handlers import codecs
from mmekit_handlers.accept import MediaType, parse
from mmekit_handlers.base import Body, Context, Handler
from mmekit_handlers.libsvm import read_libsvm, rebase
from mmekit_handlers.recordio import read_recordio
from mmekit_handlers.sparse import SparseRows
from mmekit_handlers.table import Array, Table
from mmekit_handlers.xgboost_ensemble import Ensemble
from mmekit_handlers.xgboost_files import LoadedBooster, as_booster, load_boosters
from mmekit_handlers.xgboost_output import (
    select,
    selected_names,
    unavailable,
    write_selected_csv,
    write_selected_json,
    write_selected_jsonlines,
)
from mmekit_handlers.xgboost_rows import (
    as_csr,
    as_dmatrix,
    check_finite,
    in_order,
    label_size,
    some,
    with_delimiter,
)

logger = logging.getLogger(__name__)

_LIBSVM = ("text/libsvm", "text/x-libsvm", "libsvm")
_RECORDIO = ("application/x-recordio-protobuf", "recordio-protobuf", "application/recordio-protobuf")
_PARQUET = ("application/x-parquet", "application/vnd.apache.parquet", "parquet")
_READS = ("text/csv", "text/libsvm", "application/x-recordio-protobuf", *codecs.READS[1:])


class XGBoostHandler(Handler):
    """Serves XGBoost models."""

    row_wise = True
    default_content_type = "text/libsvm"

    def __init__(self, environ: Mapping[str, str]) -> None:
        """Read the settings; raises ``ConfigError`` for a value that cannot be used."""
        super().__init__(environ)
        self._multi_model = environ.get("SAGEMAKER_MULTI_MODEL") == "true"
        self._ensemble_files = _flag(environ, "SAGEMAKER_INFERENCE_ENSEMBLE", True)
        self._batch = _flag(environ, "SAGEMAKER_BATCH", False)
        self._threads = _threads(environ)
        self._first_index = _first_index(environ)
        self._selected = selected_names(environ.get("SAGEMAKER_INFERENCE_OUTPUT"))
        # AWS: mms_transformer.py and serve.py have different defaults.
        self.default_accept = "application/json" if self._multi_model else "text/csv"
        if self._selected:
            self.produces = ("application/json", "text/csv", "application/jsonlines")
        #: What ``model_fn`` loaded, by the identity of the booster.
        self._loaded: dict[int, LoadedBooster] = {}
        #: None while it is the user's own code that predicts.
        self._ensemble: Ensemble | None = None

    @classmethod
    def warm_up(cls) -> None:
        """Train, save, load and predict with a booster of one tree, on one thread; then fail once."""
        rows = np.array([[0.0, 1.0], [1.0, 0.0]])
        with xgb.config_context(nthread=1):
            matrix = xgb.DMatrix(rows, np.array([0.0, 1.0]), nthread=1)
            trained = xgb.train({"nthread": 1, "max_depth": 1}, matrix, 1)
            loaded = LoadedBooster(xgb.Booster(model_file=trained.save_raw("ubj")), "warm-up")
            Ensemble([loaded], threads=1).predict(rows)
            # The first error takes thread-local memory for itself, and the C library aborts the process when
            # there is none: so the first one is made here, not when a load hits its memory limit.
            with suppress(xgb.core.XGBoostError):
                xgb.Booster(model_file=bytearray(b'{"learner":'))

    def model_fn(self, model_dir: str) -> xgb.Booster | list[xgb.Booster]:
        """Load the model: a Booster, or a list of them where there are several files."""
        loaded = load_boosters(model_dir, self._ensemble_files, self._threads)
        for one in loaded:
            one.booster.set_param({"nthread": self._threads})
        self._loaded = {id(one.booster): one for one in loaded}
        return loaded[0].booster if len(loaded) == 1 else [one.booster for one in loaded]

    def prepare(self, model: Any) -> Any:
        """Learn the model's features and objective; raises ``ModelLoadError`` for what is no booster."""
        several = model if isinstance(model, list | tuple) else [model]
        loaded = [self._loaded.get(id(one)) or as_booster(one) for one in several]
        self._ensemble = Ensemble(loaded, self._threads)
        self._warn_of_selection(self._ensemble)
        return model

    def input_fn(self, body: Body, content_type: str | None, context: Context) -> Any:
        """Read rows as a float64 array, or a CSR matrix where the format is sparse, in the model's order.

        A user's own ``predict_fn`` gets a ``DMatrix``, as AWS's script mode gives it.
        """
        media = parse(content_type or self.default_content_type)
        rows = self._read(body, media, content_type)
        if self._ensemble is None:
            return as_dmatrix(rows, self._first_index)
        if isinstance(rows, SparseRows):
            if media.name in _LIBSVM:
                rows = rebase(rows, self._ensemble.features, self._first_index)
            rows.check_width(self._ensemble.features)
            check_finite(rows.values)
            return as_csr(rows, self._ensemble.features)
        array = in_order(rows, self._ensemble, media)
        check_finite(array)
        return array

    def predict_fn(self, data: Any, model: Any, context: Context) -> Array:
        """Predict: ``(rows,)`` or ``(rows, outputs)`` float32."""
        if self._ensemble is None:
            self.prepare(model)
            assert self._ensemble is not None
        return self._ensemble.predict(np.asarray(data) if isinstance(data, list | tuple) else data)

    def output_fn(self, prediction: Any, accept: str | None, context: Context) -> tuple[bytes, str]:
        """Write a prediction as AWS's containers do: the multi-model one, or the single-model one."""
        content_type = self.negotiate(accept)
        values = codecs.as_array(prediction, content_type)
        if self._selected and self._ensemble is not None:
            return self._write_selected(values, content_type, self._ensemble), content_type
        if content_type == "application/x-npy":
            return codecs.write_npy(values), content_type
        if values.dtype == np.float32:
            # As doubles: the digits that AWS's containers write, and no others.
            values = values.astype(np.float64)
        return self._write(values, content_type), content_type

    def group_key(self, data: Any, context: Context) -> Hashable | None:
        """Rows of one width and kind go together; custom attributes mean nothing here."""
        if isinstance(data, np.ndarray) and data.ndim == 2:
            return data.shape[1], data.dtype.char
        return (data.shape[1], "csr") if isinstance(data, scipy.sparse.csr_matrix) else None

    def stack(self, inputs: Sequence[Any]) -> Any:
        """Put the rows of all under each other."""
        if isinstance(inputs[0], np.ndarray):
            return np.concatenate(inputs)
        return scipy.sparse.vstack(inputs, format="csr")

    # Reading

    def _read(self, body: Body, media: MediaType, content_type: str | None) -> Table | SparseRows:
        if media.name == "text/csv":
            return self._read_csv(body, media)
        if media.name in _LIBSVM:
            return read_libsvm(codecs.text_body(body, media))
        if media.name in _RECORDIO:
            rows = read_recordio(bytes(body))
            return rows if isinstance(rows, SparseRows) else Table(rows)
        if media.name in _PARQUET:
            raise UnsupportedMediaType(
                f"Content-Type is {content_type!r}; Parquet is for training, an endpoint does not read it. "
                f"This model reads {', '.join(_READS)}"
            )
        if media.name not in codecs.READS:
            raise codecs.unsupported(content_type, _READS)
        try:
            return codecs.read_table(body, content_type or media.name)
        except BadRequest as error:
            raise self._explained(error) from None

    def _read_csv(self, body: Body, media: MediaType) -> Table:
        labels = label_size(media)
        names = self._ensemble.names if self._ensemble else None
        header = {"present": True, "absent": False}.get(media.parameters.get("header", "").lower())
        text, delimiter = with_delimiter(codecs.text_body(body, media))
        try:
            table = codecs.read_csv(text, names, header=header, delimiter=delimiter)
        except BadRequest as error:
            raise self._explained(error) from None
        if labels and self._ensemble and table.values.shape[1] == self._ensemble.features + 1:
            return Table(table.values[:, 1:], table.columns[1:] if table.columns else None)
        return table

    def _explained(self, error: BadRequest) -> BadRequest:
        """Add what helps when text was sent for a category."""
        if self._ensemble is None or not self._ensemble.categorical or "is not a number" not in error.message:
            return error
        names = self._ensemble.names
        shown = [names[place] if names else str(place + 1) for place in self._ensemble.categorical]
        return BadRequest(
            f"{error.message}. Categorical features take the numeric codes of training: {some(shown)}"
        )

    # Writing

    def _write(self, values: Array, content_type: str) -> bytes:
        if content_type == "text/csv":
            return self._write_csv(values)
        if self._multi_model:
            return codecs.encode(values, content_type)
        scores = [{"score": score} for score in np.atleast_1d(values).tolist()]
        if content_type == "application/jsonlines":
            return b"".join(codecs.write_json(score) + b"\n" for score in scores)
        return codecs.write_json({"predictions": scores})

    def _write_csv(self, values: Array) -> bytes:
        lines = codecs.encode(values, "text/csv")
        if self._batch or not self._multi_model:
            return lines
        # XGB: handler_service.py joins rows by commas. Rows of several outputs have a line each:
        # AWS writes them as Python lists, which no CSV reader takes.
        lines = lines[:-1]
        return lines if values.ndim > 1 else lines.replace(b"\n", b",")

    def _write_selected(self, values: Array, content_type: str, ensemble: Ensemble) -> bytes:
        answers = select(values, self._selected, ensemble.objective, ensemble.classes)
        if content_type == "text/csv":
            return write_selected_csv(answers, self._batch)
        if content_type == "application/jsonlines":
            return write_selected_jsonlines(answers)
        return write_selected_json(answers)

    def _warn_of_selection(self, ensemble: Ensemble) -> None:
        if absent := unavailable(self._selected, ensemble.objective, ensemble.classes):
            logger.warning(
                "SAGEMAKER_INFERENCE_OUTPUT selects %s, which %s does not have: they will be null",
                ", ".join(absent),
                ensemble.objective,
            )


def _flag(environ: Mapping[str, str], name: str, default: bool) -> bool:
    value = environ.get(name)
    if value is None:
        return default
    if value.strip().lower() in ("true", "1", "yes", "on"):
        return True
    if value.strip().lower() in ("false", "0", "no", "off", ""):
        return False
    raise ConfigError(f"{name} is {value!r}; expected true or false")


def _threads(environ: Mapping[str, str]) -> int:
    value = environ.get("MMEKIT_XGBOOST_NTHREAD", "").strip() or "1"
    if not value.isdecimal() or not 1 <= int(value) <= 1024:
        raise ConfigError(f"MMEKIT_XGBOOST_NTHREAD is {value!r}; expected a whole number of threads from 1")
    return int(value)


def _first_index(environ: Mapping[str, str]) -> int | None:
    value = environ.get("MMEKIT_XGBOOST_LIBSVM_BASE", "").strip().lower() or "auto"
    if value not in ("0", "1", "auto"):
        raise ConfigError(f"MMEKIT_XGBOOST_LIBSVM_BASE is {value!r}; expected 0, 1 or auto")
    return None if value == "auto" else int(value)
