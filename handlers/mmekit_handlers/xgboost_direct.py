"""``Booster.inplace_predict`` without what it does anew for every call.

XGBoost 3.0 makes a ``Context`` in each such call, which opens and parses the files of the CPU cgroup, and
its Python part imports, formats and looks up: 215 µs for one row of 30 columns and 100 trees, against 45 µs
for the same call of the C library with the metadata matrix kept (one thread, 2-core Debian machine; most of
both is there for one tree too). The C function and the matrix it may be given are public (xgboost:
include/xgboost/c_api.h, ``XGBoosterPredictFromDense``); its Python handle and ``core._LIB`` are not, so where
a version has them otherwise, ``inplace_predict`` does the work.
"""

from __future__ import annotations

import ctypes
import json
import logging
import math
from typing import Any

import numpy as np
import scipy.sparse
import xgboost as xgb

from mmekit_handlers.table import Array

logger = logging.getLogger(__name__)


class InplacePredictor:
    """Predicts in place with one booster and fixed options."""

    def __init__(self, booster: xgb.Booster, rounds: tuple[int, int], missing: float) -> None:
        """Keep the booster; ``rounds`` and ``missing`` are those of ``Booster.inplace_predict``."""
        self._booster = booster
        self._rounds = rounds
        self._missing = missing
        options = {
            "type": 0,
            "training": False,
            "iteration_begin": rounds[0],
            "iteration_end": rounds[1],
            "missing": missing,
            "strict_shape": False,
            "cache_id": 0,
        }
        self._options = json.dumps(options).encode()
        self._call: _Calls | None = None
        try:
            self._call = _Calls(booster)
        except (AttributeError, TypeError) as error:
            logger.info("predicting through inplace_predict, %s has changed: %s", xgb.__version__, error)

    def predict(self, data: Any) -> Array:
        """Predict for what ``inplace_predict`` takes; arrays and CSR matrices of floats go the short way."""
        prediction: Array
        if isinstance(data, np.ndarray) and not data.dtype.isnative:
            data = data.astype(data.dtype.newbyteorder("="))  # XGBoost would read the bytes as they lie
        if self._call is not None and type(data) is np.ndarray and _is_plain(data) and data.ndim == 2:
            prediction = self._call.dense(data, self._options)
        elif self._call is not None and isinstance(data, scipy.sparse.csr_matrix) and _is_plain(data.data):
            prediction = self._call.csr(data, self._options)
        else:
            prediction = self._booster.inplace_predict(
                data, iteration_range=self._rounds, missing=self._missing
            )
        return prediction


class _Calls:
    """The two functions of the C library, bound to a booster."""

    def __init__(self, booster: xgb.Booster) -> None:
        library = xgb.core._LIB
        self._dense = library.XGBoosterPredictFromDense
        self._csr = library.XGBoosterPredictFromCSR
        self._check = xgb.core._check_call
        # The handles are freed with these two.
        self._booster = booster
        self._metadata = xgb.core._ProxyDMatrix()
        self._handles = booster.handle, self._metadata.handle

    def dense(self, rows: Array, options: bytes) -> Array:
        booster, metadata = self._handles
        out = _Out()
        self._check(self._dense(booster, _interface(rows), options, metadata, *out.references()))
        return out.array()

    def csr(self, rows: Any, options: bytes) -> Array:
        booster, metadata = self._handles
        out = _Out()
        parts = _interface(rows.indptr), _interface(rows.indices), _interface(rows.data)
        columns = ctypes.c_uint64(rows.shape[1])
        self._check(self._csr(booster, *parts, columns, options, metadata, *out.references()))
        return out.array()


class _Out:
    """Where the library writes: shape, its length, and a pointer to memory of the library's."""

    __slots__ = ("dimensions", "shape", "values")

    def __init__(self) -> None:
        self.shape = ctypes.POINTER(ctypes.c_uint64)()
        self.dimensions = ctypes.c_uint64()
        self.values = ctypes.POINTER(ctypes.c_float)()

    def references(self) -> tuple[Any, Any, Any]:
        return ctypes.byref(self.shape), ctypes.byref(self.dimensions), ctypes.byref(self.values)

    def array(self) -> Array:
        """Copy the values, which the next call overwrites."""
        shape = self.shape[: self.dimensions.value]
        raw = ctypes.string_at(self.values, 4 * math.prod(shape))
        return np.frombuffer(raw, np.float32).reshape(shape).copy()


def _is_plain(array: Array) -> bool:
    return array.dtype.char in "fd" and array.flags.c_contiguous and array.size > 0


def _interface(array: Array) -> bytes:
    """Describe an array to the library (numpy: The array interface protocol, version 3)."""
    shape = b",".join([b"%d" % length for length in array.shape])
    address = array.__array_interface__["data"][0]
    return b'{"data":[%d,true],"shape":[%b],"strides":null,"typestr":"%b","version":3}' % (
        address,
        shape,
        array.dtype.str.encode(),
    )
