"""A model's signature: what it takes and what it answers, as ``MAR-INF/signature.json`` in its archive.

The format is that of signature.json in MMS 0.4: ``inputs`` and ``outputs``, each a list of tensors with
``data_name`` and ``data_shape`` (0: any length), ``input_type`` and ``output_type``, content types. Two
fields are ours: ``data_type``, numpy's name of a type, and ``columns``, names for the last dimension.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from mmekit_toolkit.archive.model import ModelFile
from mmekit_toolkit.errors import ToolkitError

#: Not at the top, where MMS 0.4 had it: AWS's container for XGBoost takes every file there for a model.
SIGNATURE = "MAR-INF/signature.json"
#: Where MMS 0.4 had it.
LEGACY_SIGNATURE = "signature.json"
_MAX_BYTES = 16 * 1024 * 1024

#: Objectives of XGBoost that answer one number a row.
_ONE_NUMBER = ("reg:", "binary:", "count:", "rank:", "survival:")


class Tensor(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """One input or output."""

    data_name: str
    data_shape: list[int]
    data_type: str | None = None
    columns: list[str] | None = None


class Signature(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """What a model takes and answers; an empty list says nothing."""

    inputs: list[Tensor] = []
    outputs: list[Tensor] = []
    input_type: str | None = None
    output_type: str | None = None

    @property
    def columns(self) -> int | None:
        """How many columns a row of the only input has, None when the signature does not say."""
        if len(self.inputs) != 1 or len(self.inputs[0].data_shape) != 2:
            return None
        return self.inputs[0].data_shape[1] or None

    @property
    def names(self) -> list[str] | None:
        """The names of these columns."""
        return self.inputs[0].columns if len(self.inputs) == 1 else None

    @property
    def content(self) -> bytes:
        """The file's content."""
        return msgspec.json.format(msgspec.json.encode(self), indent=2) + b"\n"


def read_signature(file: Path) -> Signature:
    """Return the signature in a file. Raises ToolkitError, which says what is wrong where."""
    try:
        with file.open("rb") as opened:
            content = opened.read(_MAX_BYTES + 1)
    except OSError as error:
        raise ToolkitError(f"the signature {file} cannot be read: {error.strerror}.") from error
    try:
        if len(content) > _MAX_BYTES:
            raise ToolkitError(f"it is larger than {_MAX_BYTES} bytes")
        signature = msgspec.json.decode(content, type=Signature)
        for tensor in (*signature.inputs, *signature.outputs):
            _check(tensor)
    except (msgspec.MsgspecError, ToolkitError, RecursionError) as error:
        raise ToolkitError(
            f"the signature {file.name} cannot be used: {error}. Expected as in MMS 0.4: "
            '{"inputs": [{"data_name": "features", "data_shape": [0, 4]}], "input_type": "text/csv", '
            '"outputs": […], "output_type": "application/json"}, 0 for any length.'
        ) from error
    return signature


def derive(model: ModelFile) -> Signature | None:
    """Return what a model's file itself says (XGBoost, scikit-learn), None when it says nothing."""
    if model.columns is None:
        return None
    names = list(model.names) if model.names and len(model.names) == model.columns else None
    if names and not all(map(_is_text, names)):
        names = None
    outputs = []
    if model.objective and model.objective.startswith(_ONE_NUMBER):
        outputs = [Tensor("prediction", [0])]
    return Signature([Tensor("features", [0, model.columns], columns=names)], outputs)


def _is_text(name: str) -> bool:
    """Say whether a name can be written: JSON may hold halves of characters."""
    return not any("\ud800" <= char <= "\udfff" for char in name)


def _check(tensor: Tensor) -> None:
    if any(length < 0 for length in tensor.data_shape):
        raise ToolkitError(f"{tensor.data_name} has a negative length in its data_shape")
    last = tensor.data_shape[-1] if tensor.data_shape else None
    if tensor.columns is not None and len(tensor.columns) != last:
        raise ToolkitError(
            f"{tensor.data_name} names {len(tensor.columns)} columns, and the last of its data_shape is "
            f"{last}"
        )
