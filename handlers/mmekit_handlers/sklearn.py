"""scikit-learn: any estimator or Pipeline from a joblib, pickle or skops file.

Rows come in by position or by name; predict, predict_proba, … go out. How files are read stands in
``sklearn_files``, what is known about estimators in ``sklearn_facts``.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np

from mmekit.errors import (
    BadRequest,
    ConfigError,
    ModelLoadError,
    NotAcceptable,
    PredictionFailed,
)
from mmekit_handlers import codecs, sklearn_facts, sklearn_files
from mmekit_handlers.accept import parse
from mmekit_handlers.base import Body, Context, Handler, is_out_of_memory
from mmekit_handlers.table import Array, Table, Text, not_a_number

#: ``method=predict_proba`` among other things in X-Amzn-SageMaker-Custom-Attributes.
_METHOD = re.compile(r"(?:^|[,;&\s])method=([^,;&\s]*)")

#: A message of scikit-learn's: two sentences say what is wrong, the rest is a lecture.
_SENTENCES = 2


class SklearnHandler(Handler):
    """One fitted model.

    Settings: MMEKIT_SKLEARN_METHOD (which method answers, default predict, else the first that the
    model has) and MMEKIT_SKOPS_TRUSTED (comma-separated type names).
    """

    reads = (
        "text/csv",
        "application/json",
        "application/jsonlines",
        "application/x-npy",
        "application/x-npz",
    )

    def __init__(self, environ: Mapping[str, str]) -> None:
        """Raise ``ConfigError`` for a method that does not exist."""
        super().__init__(environ)
        self._method = environ.get("MMEKIT_SKLEARN_METHOD") or None
        if self._method is not None and self._method not in sklearn_facts.METHODS:
            known = ", ".join(sklearn_facts.METHODS)
            raise ConfigError(f"MMEKIT_SKLEARN_METHOD is {self._method!r}; expected one of {known}")
        trusted = environ.get("MMEKIT_SKOPS_TRUSTED", "")
        self._trusted = tuple(name.strip() for name in trusted.split(",") if name.strip())
        # Known once the model is loaded.
        self._file = ""
        self._trained: str | None = None
        self._class = ""
        self._methods: tuple[str, ...] = ()
        self._names: tuple[str, ...] | None = None
        self._count: int | None = None
        self._text: Text = False
        self._documents = False
        self._frame = False
        self._standard = False

    @classmethod
    def warm_up(cls) -> None:
        """Fit and ask a tiny pipeline; import what first calls would import, pandas where it is installed."""
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        rows = np.array([[0.0, 1.0], [1.0, 0.0], [0.5, 1.5], [1.5, 0.5]])
        model = make_pipeline(StandardScaler(), LogisticRegression()).fit(rows, [0, 1, 0, 1])
        model.predict(rows[:1])
        model.predict_proba(rows[:1])
        _pandas()

    def model_fn(self, model_dir: str) -> Any:
        """Load the one model file; see ``sklearn_files`` for which and how."""
        path = sklearn_files.find(model_dir)
        self._file = path.name
        loaded = sklearn_files.load(path, self._trusted)
        self._trained = loaded.trained
        return loaded.model

    def prepare(self, model: Any) -> Any:
        """Learn what the model takes and gives, and hold it to one thread."""
        self._class = type(model).__name__
        self._methods = sklearn_facts.methods(model)
        if not self._methods:
            raise ModelLoadError(
                f"{self._what()} has none of {', '.join(sklearn_facts.METHODS)}; "
                "write model_fn or predict_fn in code/inference.py"
            )
        estimators = sklearn_facts.parts(model)
        sklearn_facts.use_one_thread(estimators)
        self._standard = all(sklearn_facts.is_standard(part) for part in estimators)
        self._check_fitted(model)
        self.row_wise = sklearn_facts.is_row_wise(estimators)
        self._names = sklearn_facts.feature_names(model)
        self._count = sklearn_facts.feature_count(model)
        self._documents = sklearn_facts.takes_documents(model)
        takes_text = sklearn_facts.takes_text(estimators)
        if takes_text:
            self._text = sklearn_facts.text_columns(estimators, self._names) or True
        self._frame = self._names is not None and (takes_text or sklearn_facts.needs_frame(estimators))
        if self._frame and _pandas() is None:
            raise ModelLoadError(
                f"{self._what()} was fitted with a DataFrame, so it needs module 'pandas', "
                "which this image does not have"
            )
        # An array in the order of the names is what such a model is given on purpose, see needs_frame.
        warnings.filterwarnings("ignore", "X does not have valid feature names", UserWarning)
        return model

    def input_fn(self, body: Body, content_type: str | None, context: Context) -> Any:
        """Return rows in the model's order: an array, a CSR matrix (npz), or a list of texts."""
        header = content_type or self.default_content_type
        if self._documents:
            return self._read_documents(body, header)
        if parse(header).name == "application/x-npz":
            matrix = codecs.read_npz(bytes(body))
            self._check_count(matrix.shape[1])
            return matrix
        if parse(header).name not in self.reads:
            raise codecs.unsupported(content_type, self.reads)
        return self._in_order(codecs.read_table(body, header, self._names, self._text))

    def predict_fn(self, data: Any, model: Any, context: Context) -> Any:
        """Call the method that the caller or the setting asks for."""
        method = self._method_for(context.request.custom_attributes)
        try:
            return getattr(model, method)(self._as_fitted(data))
        except Exception as error:
            # scikit-learn says ValueError for data and for models that do not fit the version alike.
            if is_out_of_memory(error):
                raise
            self._explain(error, data)
            raise

    def output_fn(self, prediction: Any, accept: str | None, context: Context) -> tuple[bytes, str]:
        """Write numbers or labels; several outputs (a list of arrays) only as JSON."""
        content_type = self.negotiate(accept)
        if isinstance(prediction, list) and content_type != "application/json":
            shapes = {np.shape(part) for part in prediction}
            if len(shapes) != 1:
                raise NotAcceptable(
                    f"{self._class} gives outputs of different widths, which {content_type} cannot hold; "
                    "ask for application/json"
                )
        return codecs.encode(prediction, content_type), content_type

    # Stacking

    def group_key(self, data: Any, context: Context) -> Hashable | None:
        """Stack arrays of the same width, dtype and custom attributes (these choose the method)."""
        return super().group_key(data, context) if isinstance(data, np.ndarray) else None

    def split(self, prediction: Any, rows: Sequence[int]) -> list[Any]:
        """Cut arrays, sparse matrices and DataFrames by row; a list holds one array an output."""
        if isinstance(prediction, list):
            outputs = [self.split(output, rows) for output in prediction]
            return [list(parts) for parts in zip(*outputs, strict=True)]
        if hasattr(prediction, "tocsr"):
            dense = prediction.toarray()
            return super().split(dense, rows)
        return super().split(prediction, rows)

    # Loading

    def _what(self) -> str:
        return f"{self._class} in {self._file}" if self._file else self._class

    def _check_fitted(self, model: Any) -> None:
        from sklearn.exceptions import NotFittedError
        from sklearn.utils.validation import check_is_fitted

        if not self._standard:
            return  # nothing says how other people's estimators show that they are fitted
        try:
            check_is_fitted(model)
        except NotFittedError:
            raise ModelLoadError(f"{self._what()} is not fitted: call fit before you save it") from None

    # Reading

    def _read_documents(self, body: Body, header: str) -> list[str]:
        table = codecs.read_table(body, header, ("text",), ("text",))
        values = table.values
        if 1 not in values.shape:
            raise BadRequest(f"the rows have {values.shape[1]} columns; {self._class} takes one text a row")
        texts = values.ravel().tolist()
        for number, text in enumerate(texts, 1):
            if not isinstance(text, str):
                raise BadRequest(f"row {number} is {text!r}; {self._class} takes one text a row")
        return texts

    def _in_order(self, table: Table) -> Array:
        """Put named columns into the model's order and check how many there are."""
        values = table.values
        if table.columns is None or self._names is None:
            self._check_count(values.shape[1])
            return values
        if table.columns == self._names:
            return values
        places = {name: place for place, name in enumerate(table.columns)}
        missing = [name for name in self._names if name not in places]
        known = set(self._names)
        extra = [name for name in table.columns if name not in known]
        if missing or extra:
            found = [f"lack {', '.join(missing)}"] if missing else []
            found += [f"have unknown {', '.join(extra)}"] if extra else []
            raise BadRequest(
                f"the rows {' and '.join(found)}; {self._class} was fitted with {', '.join(self._names)}"
            )
        return values[:, [places[name] for name in self._names]]

    def _check_count(self, found: int) -> None:
        if self._count is not None and found != self._count:
            raise BadRequest(f"the rows have {found} columns; {self._class} was fitted with {self._count}")

    # Predicting

    def _method_for(self, custom_attributes: str | None) -> str:
        asked = _METHOD.search(custom_attributes) if custom_attributes else None
        method = asked[1] if asked else self._method or self._methods[0]
        if method not in self._methods:
            source = "custom attribute method" if asked else "MMEKIT_SKLEARN_METHOD"
            raise BadRequest(f"{source} is {method!r}; {self._class} has {', '.join(self._methods)}")
        return method

    def _as_fitted(self, data: Any) -> Any:
        if self._frame and isinstance(data, np.ndarray):
            return self._to_frame(data)
        return data

    def _to_frame(self, values: Array) -> Any:
        pandas = _pandas()
        names = self._names or ()
        if values.dtype.kind != "O":
            return pandas.DataFrame(values, columns=list(names))
        text = self._text if not isinstance(self._text, bool) else ()
        columns = {}
        for j, name in enumerate(names):
            # A column of its own type, as training had it; pandas finds out which.
            dtype = object if name in text else None
            columns[name] = pandas.Series(values[:, j].tolist(), dtype=dtype)
        return pandas.DataFrame(columns)

    def _explain(self, error: Exception, data: Any) -> None:
        """Raise what a caller or an operator can act on; return when the error is best left as it is."""
        note = sklearn_files.versions(self._trained)
        if isinstance(error, ValueError | TypeError) and not isinstance(error, AttributeError):
            where = self._find_bad_value(str(error), data)
            if where is not None:
                raise where from error
            if self._standard and not note:
                # Fitted, of this version, nobody else's code: what is left to be wrong is the data.
                raise BadRequest(f"{self._class} cannot use these rows: {_first_sentences(error)}") from error
        if note:
            raise PredictionFailed(
                f"{self._what()} cannot predict: {type(error).__name__}: {_first_sentences(error)}{note}"
            ) from error

    def _find_bad_value(self, message: str, data: Any) -> BadRequest | None:
        """Return the error with row and column for NaN, infinity, and text where a number is needed."""
        if not isinstance(data, np.ndarray):
            return None
        if "contains NaN" in message or "contains infinity" in message:
            return self._find_not_finite(message, data)
        text = re.search(r"could not convert string to float: (?:np\.str_\()?'(.*?)'", message)
        if text is not None:
            for i, j in np.argwhere(data == text[1]):
                return not_a_number(int(i) + 1, int(j) + 1, text[1], self._name(int(j)))
        return None

    def _find_not_finite(self, message: str, data: Array) -> BadRequest | None:
        with np.errstate(over="ignore"):
            try:
                bad = np.argwhere(~np.isfinite(data.astype(np.float32)))
            except (ValueError, TypeError):
                return None
        for i, j in bad:
            name = self._name(int(j))
            where = f"row {i + 1}, column {j + 1}" + (f" ({name})" if name else "")
            kind = "missing (NaN)" if np.isnan(data[i, j]) else "infinite or too large"
            return BadRequest(f"{where} is {kind}: {_first_sentences(message)}")
        return None

    def _name(self, column: int) -> str | None:
        return self._names[column] if self._names is not None else None


def _first_sentences(error: object) -> str:
    text = str(error).strip().replace("\n", " ")
    return ". ".join(text.split(". ")[:_SENTENCES]).rstrip(".")


def _pandas() -> Any:
    """Return pandas, or None where it is not installed: only models fitted with a DataFrame need it."""
    try:
        import pandas
    except ModuleNotFoundError:
        return None
    return pandas
