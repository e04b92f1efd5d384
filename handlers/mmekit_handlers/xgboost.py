"""XGBoost: boosters and scikit-learn wrappers from files; CSV, libsvm, recordio, JSON and npy in.

Follows AWS's container (aws/sagemaker-xgboost-container, algorithm mode); where it differs on
purpose, ``docs/behaviour.md`` says so.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import scipy.sparse
import xgboost as xgb

from mmekit.errors import BadRequest, ConfigError, ModelLoadError, UnsupportedMediaType
from mmekit_handlers import codecs
from mmekit_handlers.accept import MediaType, parse
from mmekit_handlers.base import Body, Context, Handler
from mmekit_handlers.libsvm import read_libsvm, rebase
from mmekit_handlers.recordio import read_recordio
from mmekit_handlers.sparse import SparseRows
from mmekit_handlers.table import Array, Table
from mmekit_handlers.xgboost_files import LoadedBooster, as_booster, load_boosters
from mmekit_handlers.xgboost_output import (
    LABEL_OBJECTIVES,
    select,
    selected_names,
    unavailable,
    write_selected_csv,
    write_selected_json,
    write_selected_jsonlines,
)

logger = logging.getLogger(__name__)

_LIBSVM = ("text/libsvm", "text/x-libsvm", "libsvm")
_RECORDIO = ("application/x-recordio-protobuf", "recordio-protobuf", "application/recordio-protobuf")
_PARQUET = ("application/x-parquet", "application/vnd.apache.parquet", "parquet")
_READS = ("text/csv", "text/libsvm", "application/x-recordio-protobuf", *codecs.READS[1:])

#: Above this a value is infinite to XGBoost, which computes in float32.
_LARGEST = float(np.finfo(np.float32).max)


class Ensemble:
    """The boosters of one model, which predict as one."""

    def __init__(self, loaded: Sequence[LoadedBooster], threads: int) -> None:
        """Take over boosters and set their threads; raises ``ModelLoadError`` when they do not fit together."""
        self._members = [_Member(one, threads) for one in loaded]
        first = self._members[0]
        for other in self._members[1:]:
            first.check_same_shape(other)
        self.objective = first.objective
        self.classes = first.classes
        self.features = first.features
        #: Names in the model's order; None when it was trained without.
        self.names = first.names
        self.categorical = first.categorical

    def predict(self, data: Any) -> Array:
        """Predict for an array, CSR matrix, DataFrame or DMatrix: ``(rows,)`` or ``(rows, outputs)`` float32."""
        if len(self._members) == 1:
            return self._members[0].predict(data)
        each = np.stack([member.predict(data) for member in self._members])
        if self.objective in LABEL_OBJECTIVES:
            return _most_frequent(each)
        averaged: Array = each.mean(axis=0)
        return averaged


class _Member:
    def __init__(self, loaded: LoadedBooster, threads: int) -> None:
        self._booster = loaded.booster
        self._booster.set_param({"nthread": threads})
        self._missing = loaded.missing
        self._threads = threads
        self._file = loaded.file
        learner = json.loads(self._booster.save_config())["learner"]
        self.objective: str = learner["objective"]["name"]
        self.classes = int(learner["learner_model_param"].get("num_class", 0))
        self._is_linear = learner["gradient_booster"]["name"] == "gblinear"
        self._outputs = (self.classes, learner["learner_model_param"].get("num_target"))
        self.features = self._booster.num_features()
        self.names = tuple(self._booster.feature_names) if self._booster.feature_names else None
        types = self._booster.feature_types or []
        self.categorical = [place for place, kind in enumerate(types) if kind == "c"]
        self._rounds = self._best_rounds()

    def check_same_shape(self, other: _Member) -> None:
        for what, ours, theirs in (
            ("features", self.features, other.features),
            ("classes and targets", self._outputs, other._outputs),
            ("feature names", self.names, other.names),
        ):
            if ours != theirs:
                raise ModelLoadError(
                    f"{self._file} and {other._file} cannot be averaged: the first has {what} {ours}, the second "
                    f"{theirs}. Keep one file, or set SAGEMAKER_INFERENCE_ENSEMBLE=false to use the first by name"
                )

    def predict(self, data: Any) -> Array:
        if self._is_linear and not isinstance(data, xgb.DMatrix):
            # The linear booster has no in-place prediction.
            data = xgb.DMatrix(data, missing=self._missing, nthread=self._threads)
        if isinstance(data, xgb.DMatrix):
            prediction = self._booster.predict(data, iteration_range=self._rounds, validate_features=False)
        else:
            prediction = self._booster.inplace_predict(
                data, iteration_range=self._rounds, missing=self._missing
            )
        return prediction

    def _best_rounds(self) -> tuple[int, int]:
        """Return the rounds up to the best of an early stopping; (0, 0) means all."""
        best = self._booster.attr("best_iteration")
        if best is None or self._is_linear or not best.isdigit():
            return 0, 0
        return 0, min(int(best) + 1, self._booster.num_boosted_rounds())


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
        #: None while it is the user's own code that predicts.
        self._ensemble: Ensemble | None = None

    @classmethod
    def warm_up(cls) -> None:
        """Train, save, load and predict with a booster of one tree, on one thread."""
        rows = np.array([[0.0, 1.0], [1.0, 0.0]])
        matrix = xgb.DMatrix(rows, np.array([0.0, 1.0]), nthread=1)
        trained = xgb.train({"nthread": 1, "max_depth": 1, "verbosity": 0}, matrix, 1)
        loaded = xgb.Booster({"nthread": 1}, model_file=trained.save_raw("ubj"))
        loaded.inplace_predict(rows)
        json.loads(loaded.save_config())

    def model_fn(self, model_dir: str) -> xgb.Booster | list[LoadedBooster]:
        """Load the model: a Booster, or a list where there are several files or a wrapper."""
        loaded = load_boosters(model_dir, self._ensemble_files)
        for one in loaded:
            one.booster.set_param({"nthread": self._threads})
        plain = len(loaded) == 1 and np.isnan(loaded[0].missing)
        return loaded[0].booster if plain else loaded

    def prepare(self, model: Any) -> Any:
        """Learn the model's features and objective; raises ``ModelLoadError`` for what is no booster."""
        several = model if isinstance(model, list | tuple) else [model]
        loaded = [one if isinstance(one, LoadedBooster) else as_booster(one) for one in several]
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
            return _as_dmatrix(rows, self._first_index)
        if isinstance(rows, SparseRows):
            if media.name in _LIBSVM:
                rows = rebase(rows, self._ensemble.features, self._first_index)
            rows.check_width(self._ensemble.features)
            _check_finite(rows.values)
            return _as_csr(rows, self._ensemble.features)
        array = _in_order(rows, self._ensemble, media)
        _check_finite(array)
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
                f"Content-Type is {content_type!r}; Parquet is for training and cannot be sent to an endpoint. "
                f"This model reads {', '.join(_READS)}"
            )
        if media.name not in codecs.READS:
            raise codecs.unsupported(content_type, _READS)
        try:
            return codecs.read_table(body, content_type or media.name)
        except BadRequest as error:
            raise self._explained(error) from None

    def _read_csv(self, body: Body, media: MediaType) -> Table:
        labels = _label_size(media)
        names = self._ensemble.names if self._ensemble else None
        header = {"present": True, "absent": False}.get(media.parameters.get("header", "").lower())
        text, delimiter = _with_delimiter(codecs.text_body(body, media))
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
            f"{error.message}. Categorical features take their numeric codes from training, here: {_some(shown)}"
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


def _in_order(table: Table, ensemble: Ensemble, media: MediaType) -> Array:
    """Return the values, checked for width and put in the model's order where columns have names."""
    values = table.values
    if not len(values):
        raise BadRequest("the body has no rows; expected at least one row")
    if values.dtype != np.float64 and values.dtype != np.float32:
        values = values.astype(np.float64)
    if table.columns is not None and ensemble.names is not None:
        order = _places(table.columns, ensemble.names)
        return values if order is None else np.ascontiguousarray(values[:, order])
    if values.shape[1] != ensemble.features:
        raise BadRequest(_width_text(values.shape[1], ensemble, media))
    return values


def _places(columns: Sequence[str], names: Sequence[str]) -> list[int] | None:
    """Return where each of the model's features is among the columns; None when they are in order."""
    if tuple(columns) == tuple(names):
        return None
    missing = [name for name in names if name not in set(columns)]
    unexpected = [column for column in columns if column not in set(names)]
    if missing or unexpected:
        said = [f"missing: {_some(missing)}"] if missing else []
        said += [f"unexpected: {_some(unexpected)}"] if unexpected else []
        raise BadRequest(
            f"the names of the columns are not those of the model's {len(names)} features; {'; '.join(said)}"
        )
    place = {column: index for index, column in enumerate(columns)}
    return [place[name] for name in names]


def _width_text(width: int, ensemble: Ensemble, media: MediaType) -> str:
    text = f"the rows have {width} columns; the model has {ensemble.features} features"
    if ensemble.names is not None:
        text += f" ({_some(ensemble.names)})"
    if media.name == "text/csv" and width == ensemble.features + 1:
        text += "; send no label, or say that the first column is one: Content-Type: text/csv; label_size=1"
    return text


def _some(names: Sequence[str], most: int = 20) -> str:
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


def _check_finite(values: Array) -> None:
    """Raise ``BadRequest`` for what XGBoost refuses in a DMatrix and takes for a number in place."""
    infinite = np.abs(values) > _LARGEST  # NaN is not above anything
    if infinite.any():
        where = np.argwhere(infinite)[0]
        place = f"row {where[0] + 1}, column {where[1] + 1}: " if values.ndim == 2 else ""
        value = float(values[tuple(where)])
        raise BadRequest(
            f"{place}{value!r} is infinite or too large for float32; leave the field empty for a missing value"
        )


def _with_delimiter(text: bytes) -> tuple[bytes, str]:
    """Return the text and what parts its fields: the first of comma, tab, semicolon, bar in line 1.

    Lines of numbers parted by blanks come back with commas.
    """
    first = text.lstrip(b"\r\n").partition(b"\n")[0]
    if b"," in first:
        return text, ","
    for delimiter in (b"\t", b";", b"|"):
        if delimiter in first:
            simple = b'"' not in text and b"," not in text
            return (text.replace(delimiter, b","), ",") if simple else (text, delimiter.decode())
    if first.strip() and not first.strip(b" \r").translate(None, b"0123456789.+-eE naNifIF"):
        return b"\n".join(b",".join(line.split()) for line in text.splitlines()), ","
    return text, ","


def _label_size(media: MediaType) -> int:
    """Return how many label columns the Content-Type says there are (XGB: data_utils.py takes 1 only)."""
    size = media.parameters.get("label_size", "0")
    if size not in ("0", "1"):
        raise UnsupportedMediaType(f"Content-Type has label_size={size}; expected 0, or 1 for a first column to drop")
    return int(size)


def _as_csr(rows: SparseRows, features: int) -> Any:
    return scipy.sparse.csr_matrix((rows.values, rows.columns, rows.starts), shape=(len(rows), features))


def _as_dmatrix(rows: Table | SparseRows, first_index: int | None) -> xgb.DMatrix:
    if isinstance(rows, Table):
        names = list(rows.columns) if rows.columns else None
        return xgb.DMatrix(rows.values, feature_names=names, nthread=1)
    highest = int(rows.columns.max()) if rows.columns.size else 0
    rows = rebase(rows, highest + 2, first_index)
    return xgb.DMatrix(_as_csr(rows, max(highest + 1, rows.width or 0)), nthread=1)


def _most_frequent(each: Array) -> Array:
    """Return the label that most members chose, for each row; the smallest among equals (scipy.stats.mode)."""
    ordered = np.sort(each, axis=0)
    votes = (ordered[:, None] == ordered[None]).sum(axis=0)
    chosen: Array = np.take_along_axis(ordered, votes.argmax(axis=0)[None], axis=0)[0]
    return chosen


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
