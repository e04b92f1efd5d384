"""PyTorch's model files: which file is the model, and which kind it is.

Kinds are told apart by what is inside (zip members, pickle opcodes), never by trying loaders one
after the other: a loader's complaint about a file of another kind helps nobody.
"""

from __future__ import annotations

import enum
import io
import json
import pickletools
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from torch.serialization import get_unsafe_globals_in_checkpoint

from mmekit.errors import InvalidModel

#: Names that are taken as the model even when other candidates lie beside them (AWS: ``model.pt``).
FIRST_NAMES = ("model.pt", "model.pth", "model.pt2")
#: Endings of files that may be the model.
SUFFIXES = (".pt", ".pth", ".pt2", ".bin", ".safetensors")

# torch.save before 1.6: a pickled magic number, then protocol, system, the object (torch/serialization.py).
_LEGACY_MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
_LEGACY_PICKLES_BEFORE_OBJECT = 3
# A pointer that `git clone` leaves where Git LFS is not installed.
_LFS_POINTER = b"version https://git-lfs"
# A safetensors file starts with the length of its JSON header; longer ones are refused by the library.
_MAX_SAFETENSORS_HEADER = 100_000_000
_EXPORT_MARKS = {"archive_format", "serialized_exported_program.json"}  # since torch 2.8, and before


class Kind(enum.Enum):
    TORCHSCRIPT = "TorchScript program"
    EXPORTED = "torch.export archive"
    WEIGHTS = "state_dict"
    OBJECTS = "pickle of Python objects"
    SAFETENSORS = "safetensors file"


@dataclass(frozen=True, slots=True)
class ModelFile:
    """``objects``: classes and functions, besides tensors, that unpickling would look up and call."""

    path: Path
    kind: Kind
    objects: tuple[str, ...] = ()
    is_zip: bool = True

    @property
    def name(self) -> str:
        return self.path.name


def find(model_dir: str) -> ModelFile:
    """Return the model's file: ``model.pt``, ``model.pth`` or ``model.pt2``, else the only candidate.

    Raises ``InvalidModel`` when there is none, or several.
    """
    files = sorted(path for path in Path(model_dir).iterdir() if path.is_file())
    candidates = [path for path in files if path.suffix in SUFFIXES and not path.name.startswith(".")]
    for name in FIRST_NAMES:
        if Path(model_dir, name) in candidates:
            return identify(Path(model_dir, name))
    if len(candidates) == 1:
        return identify(candidates[0])
    if candidates:
        raise InvalidModel(
            f"{len(candidates)} files could be the PyTorch model: {_names(candidates)}; name one of them "
            f"{FIRST_NAMES[0]}, or load what you need in model_fn (code/inference.py)"
        )
    raise InvalidModel(
        f"no PyTorch model file: expected {FIRST_NAMES[0]} or one file ending in {', '.join(SUFFIXES)}; "
        f"found {_names(files) or 'no files'}"
    )


def identify(path: Path) -> ModelFile:
    """Say which kind of file this is; raises ``InvalidModel`` when it is none that can be loaded."""
    with path.open("rb") as file:
        head = file.read(32)
    if head.startswith(b"PK"):
        return _identify_zip(path)
    if head.startswith(_LEGACY_MAGIC):
        objects = _objects_of_legacy(path)
        return ModelFile(path, Kind.OBJECTS if objects else Kind.WEIGHTS, objects, is_zip=False)
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < _MAX_SAFETENSORS_HEADER:
        return ModelFile(path, Kind.SAFETENSORS)
    if head.startswith(_LFS_POINTER):
        raise InvalidModel(f"{path.name} is a Git LFS pointer, not the file: `git lfs pull`, pack again")
    if not head:
        raise InvalidModel(f"{path.name} is empty")
    raise InvalidModel(
        f"{path.name} is not a PyTorch file: it starts with {head[:8]!r}, which is neither a zip archive "
        "(torch.save, torch.jit.save, torch.export.save) nor safetensors"
    )


def describe(file: ModelFile) -> str:
    """Return kind and name, with the torch version that wrote it where the file says so (torch.export)."""
    version = _export_version(file.path) if file.kind is Kind.EXPORTED else None
    return f"{file.name} ({file.kind.value}" + (f", saved by torch {version})" if version else ")")


def damaged(path: Path, error: Exception) -> InvalidModel:
    """Return the error for a file whose own format says that bytes are missing or changed."""
    return InvalidModel(f"{path.name} is damaged or truncated ({error}): pack the model again")


def _identify_zip(path: Path) -> ModelFile:
    try:
        with zipfile.ZipFile(path) as archive:
            # Members are "<root>/data.pkl"; torch.export before 2.8 wrote no root.
            members = {name.partition("/")[2] or name for name in archive.namelist()}
    except Exception as error:  # zipfile raises many types on a damaged directory
        raise damaged(path, error) from error
    if "constants.pkl" in members and any(name.startswith("code/") for name in members):
        return ModelFile(path, Kind.TORCHSCRIPT)
    if any(name.startswith("data/aotinductor/") for name in members):
        raise InvalidModel(
            f"{path.name} is an AOTInductor package, machine code for one kind of device: "
            "load it in model_fn with torch._inductor.aoti_load_package, or use torch.export.save"
        )
    if members & _EXPORT_MARKS:
        return ModelFile(path, Kind.EXPORTED)
    if ".data/extern_modules" in members:
        raise InvalidModel(
            f"{path.name} is a torch.package archive: load it in model_fn with torch.package.PackageImporter"
        )
    if "data.pkl" in members:
        objects = _objects_of_zip(path)
        return ModelFile(path, Kind.OBJECTS if objects else Kind.WEIGHTS, objects)
    raise InvalidModel(
        f"{path.name} is a zip archive, but none that PyTorch writes; "
        f"it contains {', '.join(sorted(members)[:5])}"
    )


def _objects_of_zip(path: Path) -> tuple[str, ...]:
    try:
        with zipfile.ZipFile(path) as archive:
            name = next(name for name in archive.namelist() if name.endswith("/data.pkl"))
            return _unsafe(_names_looked_up(io.BytesIO(archive.read(name))))
    except Exception as error:  # as above, and pickletools
        raise damaged(path, error) from error


def _objects_of_legacy(path: Path) -> tuple[str, ...]:
    try:
        with path.open("rb") as file:
            for _ in range(_LEGACY_PICKLES_BEFORE_OBJECT):
                _names_looked_up(file)
            return _unsafe(_names_looked_up(file))
    except Exception as error:  # pickletools, on opcodes that are none
        raise damaged(path, error) from error


def _names_looked_up(file: IO[bytes]) -> list[str]:
    """Read one pickle's opcodes, unpickling nothing; return the "module name" pairs that it looks up."""
    names: list[str] = []
    texts: list[str] = []
    for opcode, arg, _ in pickletools.genops(file):
        if opcode.name == "GLOBAL":
            names.append(str(arg))
        elif opcode.name == "STACK_GLOBAL":  # pickle_protocol=4: the two texts before it
            names.append(" ".join(texts[-2:]))
        elif isinstance(arg, str):
            texts.append(arg)
    return names


def _unsafe(names: Iterable[str]) -> tuple[str, ...]:
    """Return those of ``names`` that ``torch.load(weights_only=True)`` would refuse.

    torch answers this only for a zip checkpoint: make one that looks up these names and nothing else.
    """
    opcodes = "".join("c" + name.replace(" ", "\n") + "\n" for name in names)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02" + opcodes.encode() + b".")
        archive.writestr("archive/version", "3\n")
        archive.writestr("archive/byteorder", "little")
    buffer.seek(0)
    return tuple(sorted(get_unsafe_globals_in_checkpoint(buffer)))


def _export_version(path: Path) -> str | None:
    try:
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                if name.endswith(("/models/model.json", "serialized_exported_program.json")):
                    return str(json.loads(archive.read(name))["torch_version"])
    except Exception:  # noqa: BLE001 - wanted for an error's text: the error itself is told anyway
        pass
    return None


def _names(paths: Sequence[Path]) -> str:
    return ", ".join(path.name for path in paths)
