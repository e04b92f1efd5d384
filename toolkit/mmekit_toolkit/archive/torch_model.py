"""What kind of PyTorch file this is, told from its members as the handler does (torch_files.py)."""

from __future__ import annotations

import enum
import json
import re
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from mmekit.archive.members import raw_members, refusing_broken
from mmekit.errors import InvalidModel
from mmekit_toolkit.archive.pickle_values import Global

_MAX_SAFETENSORS_HEADER = 100_000_000
#: A longer header is not read: a tensor takes a hundred bytes of it, parsed ten times that.
_MAX_PARSED_HEADER = 16 * 1024 * 1024
_EXPORT_MARKS = {"archive_format", "serialized_exported_program.json"}
#: A torch.export archive's document names its version; programs are text.
_MAX_DOCUMENT_BYTES = 64 * 1024 * 1024
_EXPORT_DOCUMENT = re.compile(r"(.*/)?(models/model\.json|serialized_exported_program\.json)")
_TORCH_VERSION = re.compile(rb'"torch_version"\s*:\s*"([\w.+-]{1,40})"')
#: What torch.load(weights_only=True) takes, as far as weights need it (torch: _weights_only_unpickler.py).
_OF_WEIGHTS = re.compile(
    r"collections\.(OrderedDict|Counter)|builtins\.(set|frozenset|bytearray|complex)|_codecs\.encode"
    r"|torch\._utils\._rebuild\w*|torch\._tensor\._rebuild\w*|torch\.(\w+Storage|Size|device|Tensor|\w*\d+\w*)"
    r"|torch\.storage\.(Un)?[Tt]ypedStorage|torch\.nn\.parameter\.\w+|torch\.serialization\._get_layout"
    r"|torch\.(float|double|half|int|long|short|bool|layout|strided|qint8|quint8|qint32|bfloat16|complex\d+)"
    r"|numpy(\._?core\.multiarray)?\.(_reconstruct|ndarray|dtype|scalar)|numpy\.dtypes\.\w+"
    r"|torch\.(per_\w+|quantized\.\w+)|torch\._C\.\w+"
)


class Kind(str, enum.Enum):
    """What torch_files.Kind has, and what the handler refuses."""

    TORCHSCRIPT = "TorchScript"
    EXPORTED = "torch.export archive"
    PICKLED = "torch.save"
    SAFETENSORS = "safetensors"
    AOT_INDUCTOR = "AOTInductor package"
    PACKAGE = "torch.package archive"
    NONE = "not a PyTorch file"


@dataclass(frozen=True)
class TorchModel:
    """``version`` is torch's, where the file says it (torch.export)."""

    kind: Kind
    version: str | None = None
    #: A safetensors file whose end is missing.
    is_cut: bool = False


def read_file(path: Path) -> TorchModel:
    """Return what kind of file it is. Raises OSError when it cannot be read."""
    with path.open("rb") as file:
        head = file.read(32)
    if head.startswith(b"PK\3\4"):
        return _of_zip(path)
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < _MAX_SAFETENSORS_HEADER:
        return TorchModel(Kind.SAFETENSORS, is_cut=_is_cut(path, int.from_bytes(head[:8], "little")))
    return TorchModel(Kind.PICKLED if head.startswith(b"\x80\x02\x8a\nl\xfc\x9cF\xf9") else Kind.NONE)


def objects_in(found: list[Global]) -> list[str]:
    """Return those of a pickle's imports that weights do not have: classes, so it is a whole module."""
    return sorted(str(each) for each in found if not _OF_WEIGHTS.fullmatch(str(each)))


def _is_cut(path: Path, header_bytes: int) -> bool:
    """Say whether a safetensors file is shorter than its header says (its format: README of safetensors)."""
    if header_bytes > _MAX_PARSED_HEADER:
        return path.stat().st_size < 8 + header_bytes
    with path.open("rb") as file:
        file.seek(8)
        header = file.read(header_bytes)
    try:
        tensors = json.loads(header)
        ends = [each["data_offsets"][1] for name, each in tensors.items() if name != "__metadata__"]
        return path.stat().st_size < 8 + header_bytes + max(ends, default=0)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return True


def _of_zip(path: Path) -> TorchModel:
    names: set[str] = set()
    version = None
    try:
        with refusing_broken(path.name), closing(raw_members(path, path.name)) as members:
            for member in members:
                names.add(member.name.partition("/")[2] or member.name)
                if _EXPORT_DOCUMENT.fullmatch(member.name) and member.size <= _MAX_DOCUMENT_BYTES:
                    version = _version_in(b"".join(member.chunks()))
    except InvalidModel:
        return TorchModel(Kind.NONE)
    return TorchModel(_kind_of(names), version)


def _kind_of(names: set[str]) -> Kind:
    if "constants.pkl" in names and any(name.startswith("code/") for name in names):
        return Kind.TORCHSCRIPT
    if any(name.startswith("data/aotinductor/") for name in names):
        return Kind.AOT_INDUCTOR
    if names & _EXPORT_MARKS:
        return Kind.EXPORTED
    if ".data/extern_modules" in names:
        return Kind.PACKAGE
    return Kind.PICKLED if "data.pkl" in names else Kind.NONE


def _version_in(document: bytes) -> str | None:
    found = _TORCH_VERSION.search(document)
    return found[1].decode() if found else None
