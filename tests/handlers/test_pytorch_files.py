"""Which file is the model, which kind it is, and what is said about each that cannot be loaded."""

from __future__ import annotations

import argparse
import json
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from mmekit.errors import InvalidModel, ModelLoadError
from mmekit_handlers.pytorch import PyTorchHandler, load_weights
from mmekit_handlers.torch_files import Kind, find, identify
from tests.support.pytorch import Net, TwoInputs, save_torchscript, served


@pytest.fixture(scope="module")
def net() -> Net:
    return Net().eval()


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory, net: Net) -> Path:
    """Return an archive of ``net`` with any number of rows; a process's first export takes seconds."""
    path = tmp_path_factory.mktemp("exported") / "model.pt2"
    rows = torch.export.Dim("rows")
    torch.export.save(torch.export.export(net, (torch.zeros(2, 3),), dynamic_shapes=({0: rows},)), path)
    return path


def load(folder: Path, **environ: str) -> object:
    return PyTorchHandler(environ).model_fn(str(folder))


def test_each_format_is_told_by_its_content_not_by_its_name(tmp_path: Path, net: Net, exported: Path) -> None:
    path = tmp_path / "model.bin"
    save_torchscript(net, path)
    assert identify(path).kind is Kind.TORCHSCRIPT
    path.write_bytes(exported.read_bytes())
    assert identify(path).kind is Kind.EXPORTED
    torch.save(net.state_dict(), path)
    assert identify(path).kind is Kind.WEIGHTS
    torch.save({"epoch": 3, "state_dict": net.state_dict()}, path)
    assert identify(path).kind is Kind.WEIGHTS
    torch.save(net, path)
    assert identify(path).kind is Kind.OBJECTS
    save_file(net.state_dict(), path)
    assert identify(path).kind is Kind.SAFETENSORS


def test_files_from_before_torch_1_6_are_told_apart_too(tmp_path: Path, net: Net) -> None:
    path = tmp_path / "model.pt"
    torch.save(net.state_dict(), path, _use_new_zipfile_serialization=False)
    assert (identify(path).kind, identify(path).objects) == (Kind.WEIGHTS, ())
    torch.save(net, path, _use_new_zipfile_serialization=False)
    assert identify(path).kind is Kind.OBJECTS
    assert f"{Net.__module__}.Net" in identify(path).objects


def test_model_pt_goes_before_other_candidates(tmp_path: Path, net: Net) -> None:
    for name in ("other.pt", "model.pth", "model.pt", "tokenizer.json", "._model.pt"):
        save_torchscript(net, tmp_path / name)
    assert find(str(tmp_path)).name == "model.pt"
    (tmp_path / "model.pt").unlink()
    assert find(str(tmp_path)).name == "model.pth"
    (tmp_path / "model.pth").unlink()
    assert find(str(tmp_path)).name == "other.pt"


def test_several_candidates_are_named(tmp_path: Path, net: Net) -> None:
    for name in ("a.pt", "b.pth"):
        save_torchscript(net, tmp_path / name)
    with pytest.raises(
        InvalidModel, match=r"2 files could be the PyTorch model: a\.pt, b\.pth; name one .* model\.pt"
    ):
        find(str(tmp_path))


def test_a_folder_without_a_candidate_says_what_was_expected_and_found(tmp_path: Path) -> None:
    with pytest.raises(
        InvalidModel, match=r"expected model\.pt or one file ending in \.pt, .*; found no files"
    ):
        find(str(tmp_path))
    (tmp_path / "model.h5").write_bytes(b"")
    with pytest.raises(InvalidModel, match=r"found model\.h5"):
        find(str(tmp_path))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "model.pt is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "is a Git LFS pointer"),
        (b"<html>not found</html>", r"starts with b'<html>no', which is neither a zip archive"),
        (b"PK\x03\x04 and no more", r"model\.pt is damaged or truncated \(File is not a zip file\): pack"),
        (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M", r"model\.pt is damaged or truncated"),
    ],
)
def test_files_of_no_known_kind_say_what_they_are(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "model.pt").write_bytes(content)
    with pytest.raises(InvalidModel, match=said):
        load(tmp_path)


@pytest.mark.parametrize(
    ("member", "said"),
    [
        ("m/data/aotinductor/model/x.so", "AOTInductor package.*aoti_load_package"),
        ("m/.data/extern_modules", "torch.package archive"),
        ("word/document.xml", "none that PyTorch writes; it contains document.xml"),
    ],
)
def test_zip_archives_of_other_kinds_are_named(tmp_path: Path, member: str, said: str) -> None:
    with zipfile.ZipFile(tmp_path / "model.pt", "w") as archive:
        archive.writestr(member, "")
    with pytest.raises(InvalidModel, match=said):
        load(tmp_path)


@pytest.mark.parametrize("keep", [0.3, 0.9])
def test_a_truncated_file_is_named_as_such(tmp_path: Path, net: Net, keep: float) -> None:
    path = tmp_path / "model.pt"
    save_torchscript(net, path)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * keep)])
    with pytest.raises(InvalidModel, match="damaged or truncated"):
        load(tmp_path)


def test_weights_alone_ask_for_model_fn_and_show_it(tmp_path: Path, net: Net) -> None:
    torch.save(net.state_dict(), tmp_path / "net.pth")
    with pytest.raises(ModelLoadError, match="state_dict: weights without the class") as caught:
        load(tmp_path)
    example = caught.value.message.partition(":\n\n")[2]
    compile(example, "example", "exec")
    assert 'load_weights(MyModel, model_dir + "/net.pth")' in example


def test_safetensors_alone_ask_for_model_fn(tmp_path: Path, net: Net) -> None:
    save_file(net.state_dict(), tmp_path / "model.safetensors")
    with pytest.raises(ModelLoadError, match=r"model\.safetensors is a safetensors file: weights without"):
        load(tmp_path)


def test_a_pickled_module_is_refused_with_both_ways_out(tmp_path: Path, net: Net) -> None:
    torch.save(net, tmp_path / "model.pt")
    with pytest.raises(ModelLoadError) as caught:
        load(tmp_path)
    said = caught.value.message
    assert "Net" in said
    assert "torch.export.save" in said
    assert "torch.save(model.state_dict()" in said
    assert "def model_fn(model_dir):" in said
    assert "MMEKIT_PYTORCH_ALLOW_PICKLE=true" in said


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickled_module_loads_where_pickles_are_allowed(tmp_path: Path, net: Net, zipped: bool) -> None:
    torch.save(net, tmp_path / "model.pt", _use_new_zipfile_serialization=zipped)
    model = load(tmp_path, MMEKIT_PYTORCH_ALLOW_PICKLE="true")
    assert isinstance(model, Net)


def test_a_pickled_module_whose_class_is_missing_says_where_to_put_it(
    tmp_path: Path, net: Net, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save(net, tmp_path / "model.pt")
    monkeypatch.delattr(f"{Net.__module__}.Net")
    with pytest.raises(ModelLoadError, match=r"pickles .*Net.*, which cannot be imported.*code/"):
        load(tmp_path, MMEKIT_PYTORCH_ALLOW_PICKLE="true")


def test_an_allowed_pickle_of_something_else_is_named(tmp_path: Path) -> None:
    torch.save(argparse.Namespace(a=1), tmp_path / "model.pt")
    with pytest.raises(ModelLoadError, match=r"holds a Namespace, not an nn\.Module"):
        load(tmp_path, MMEKIT_PYTORCH_ALLOW_PICKLE="true")


def test_a_program_that_torch_cannot_read_names_the_version_and_the_reason(tmp_path: Path, net: Net) -> None:
    whole = tmp_path / "whole.pt"
    save_torchscript(net, whole)
    with zipfile.ZipFile(whole) as source, zipfile.ZipFile(tmp_path / "model.pt", "w") as target:
        for member in source.infolist():
            content = source.read(member)
            if member.filename.endswith("__torch__/tests/support/pytorch.py"):
                content = content.replace(b"self.layers", b"ops.custom.nms(x)")
            target.writestr(member, content)
    with pytest.raises(ModelLoadError) as caught:
        load(tmp_path)
    said = caught.value.message
    assert said.startswith(
        f"torch {torch.__version__} cannot read model.pt (TorchScript program): RuntimeError: "
    )


def test_an_export_that_torch_cannot_read_names_both_versions(tmp_path: Path, exported: Path) -> None:
    with zipfile.ZipFile(exported) as source, zipfile.ZipFile(tmp_path / "model.pt2", "w") as target:
        for member in source.infolist():
            content = source.read(member)
            if member.filename.endswith("models/model.json"):
                document = json.loads(content)
                document["schema_version"]["major"] = 99
                document["torch_version"] = "9.9.0"
                content = json.dumps(document).encode()
            target.writestr(member, content)
    with pytest.raises(
        ModelLoadError, match=r"model\.pt2 \(torch\.export archive, saved by torch 9\.9\.0\)"
    ) as caught:
        load(tmp_path)
    assert caught.value.message.startswith(f"torch {torch.__version__} cannot read ")


def test_torchscript_and_export_predict_as_the_module_itself(
    tmp_path: Path, net: Net, exported: Path
) -> None:
    rows = torch.rand(4, 3)
    save_torchscript(net, tmp_path / "model.pt")
    for folder in (tmp_path, exported.parent):
        _, model = served(folder)
        with torch.inference_mode():
            torch.testing.assert_close(model(rows), net(rows), rtol=0, atol=0)


# load_weights


def formats(tmp_path: Path, module: torch.nn.Module) -> list[Path]:
    paths = [tmp_path / name for name in ("zip.pt", "legacy.pt", "model.safetensors")]
    torch.save(module.state_dict(), paths[0])
    torch.save(module.state_dict(), paths[1], _use_new_zipfile_serialization=False)
    save_file(module.state_dict(), paths[2])
    return paths


def test_load_weights_reads_every_format_of_weights(tmp_path: Path, net: Net) -> None:
    rows = torch.rand(4, 3)
    for path in formats(tmp_path, net):
        loaded = load_weights(Net, path)
        assert not loaded.training
        torch.testing.assert_close(loaded(rows), net(rows), rtol=0, atol=0)


def anonymous_kib() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1])
    raise AssertionError


@pytest.mark.parametrize("name", ["zip.pt", "model.safetensors"])
def test_mapped_weights_take_no_memory_of_their_own(tmp_path: Path, name: str) -> None:
    big = torch.nn.Linear(2048, 2048)
    formats(tmp_path, big)
    load_weights(lambda: torch.nn.Linear(2048, 2048), tmp_path / name)
    before = anonymous_kib()
    loaded = load_weights(lambda: torch.nn.Linear(2048, 2048), tmp_path / name)
    assert torch.equal(loaded.weight, big.weight)
    assert anonymous_kib() - before < 4096  # the weights are 16 MiB


def test_tensors_that_are_not_in_the_file_are_computed(tmp_path: Path) -> None:
    class Rotary(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = torch.nn.Parameter(torch.ones(3))
            self.register_buffer("frequencies", torch.arange(3.0), persistent=False)

    torch.save({"scale": torch.full((3,), 2.0)}, tmp_path / "model.pt")
    loaded = load_weights(Rotary, tmp_path / "model.pt")
    assert loaded.frequencies.tolist() == [0, 1, 2]
    assert loaded.scale.tolist() == [2, 2, 2]


def test_tied_weights_of_safetensors_stay_tied(tmp_path: Path) -> None:
    from safetensors.torch import save_model

    class Tied(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = torch.nn.Embedding(5, 3)
            self.head = torch.nn.Linear(3, 5, bias=False)
            self.head.weight = self.embedding.weight

    module = Tied()
    save_model(module, tmp_path / "model.safetensors")
    loaded = load_weights(Tied, tmp_path / "model.safetensors")
    assert torch.equal(loaded.head.weight, module.embedding.weight)
    assert torch.equal(loaded.embedding.weight, module.embedding.weight)


@pytest.mark.parametrize("key", ["state_dict", "model_state_dict", "model"])
def test_weights_inside_a_training_checkpoint_are_found(tmp_path: Path, net: Net, key: str) -> None:
    parallel = {"module." + name: tensor for name, tensor in net.state_dict().items()}
    torch.save({"epoch": 3, key: parallel, "optimizer": {"lr": 0.1}}, tmp_path / "model.pt")
    loaded = load_weights(Net, tmp_path / "model.pt")
    assert torch.equal(loaded.layers[0].weight, net.layers[0].weight)


def test_weights_that_do_not_fit_name_the_differences(tmp_path: Path, net: Net) -> None:
    for path in formats(tmp_path, net):
        with pytest.raises(
            ModelLoadError, match=rf"{path.name} does not fit Net: .*size mismatch for layers\.0\.weight"
        ):
            load_weights(lambda: Net(width=4), path)
        with pytest.raises(ModelLoadError, match=r"does not fit TwoInputs: .*Missing key.*embedding\.weight"):
            load_weights(TwoInputs, path)


def test_load_weights_names_what_it_cannot_read(tmp_path: Path, net: Net) -> None:
    path = tmp_path / "model.pt"
    save_torchscript(net, path)
    with pytest.raises(
        ModelLoadError, match=r"load_weights reads weights; model\.pt is a TorchScript program"
    ):
        load_weights(Net, path)
    torch.save({"args": argparse.Namespace(), "state_dict": net.state_dict()}, path)
    with pytest.raises(
        ModelLoadError, match=r"pickle of Python objects \(argparse\.Namespace\): save model\.state_dict"
    ):
        load_weights(Net, path)
    torch.save({"epoch": 3}, path)
    with pytest.raises(
        ModelLoadError, match=r"holds a dict of epoch; expected a state_dict, or one under state_dict or"
    ):
        load_weights(Net, path)
    torch.save([1.0], path)
    with pytest.raises(ModelLoadError, match="holds a list; expected"):
        load_weights(Net, path)
    broken = tmp_path / "model.safetensors"
    save_file(net.state_dict(), broken)
    broken.write_bytes(broken.read_bytes()[:-8])
    with pytest.raises(InvalidModel, match=r"model\.safetensors is damaged or truncated"):
        load_weights(Net, broken)
