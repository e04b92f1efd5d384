"""What the PyTorch handler reads, predicts, writes and refuses; on the CPU."""

from __future__ import annotations

import json
import re
import resource
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mmekit.errors import (
    BadRequest,
    ConfigError,
    ModelLoadError,
    NotAcceptable,
    OutOfResources,
    UnsupportedMediaType,
)
from mmekit_handlers.functions import UserFunctions
from mmekit_handlers.pytorch import FatalDeviceError, PyTorchHandler
from mmekit_handlers.torch_device import device_failure
from mmekit_handlers.transformer import Transformer
from tests.support.pytorch import (
    Context,
    Net,
    Request,
    TwoInputs,
    answer,
    ask,
    module_of,
    npy,
    save_torchscript,
    served,
)

#: Each number is the same in every type that is sent, float16 too.
ROWS = [[0.125, 0.25, 0.375], [1, 2, 3]]


@pytest.fixture(scope="module")
def net() -> Net:
    return Net().eval()


@pytest.fixture(scope="module")
def expected(net: Net) -> np.ndarray:
    with torch.inference_mode():
        return net(torch.tensor(ROWS)).numpy()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, net: Net) -> Path:
    folder = tmp_path_factory.mktemp("net")
    save_torchscript(net, folder / "model.pt")
    return folder


def handler_for(model: Any, **environ: str) -> tuple[PyTorchHandler, Any]:
    handler = PyTorchHandler(environ)
    return handler, handler.prepare(model)


# In and out


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (json.dumps(ROWS).encode(), "application/json"),
        (json.dumps(ROWS).encode(), None),
        (json.dumps({"inputs": ROWS}).encode(), "application/json; charset=utf-8"),
        (json.dumps({"instances": ROWS}).encode(), "application/json"),
        (b"0.125,0.25,0.375\n1,2,3\n", "text/csv"),
        (b"a,b,c\n0.125,0.25,0.375\n1,2,3\n", "text/csv; header=present"),
        (b"[0.125,0.25,0.375]\n[1,2,3]\n", "application/jsonlines"),
        (npy(np.array(ROWS, np.float32)), "application/x-npy"),
        (npy(np.array(ROWS, np.float64)), "application/x-npy"),
        (npy(np.asfortranarray(np.array(ROWS, ">f8"))), "application/x-npy"),
        (memoryview(npy(np.array(ROWS, np.float16))), "application/x-npy"),
    ],
)
def test_every_input_type_predicts_what_torch_predicts(
    folder: Path, expected: np.ndarray, body: bytes, content_type: str | None
) -> None:
    handler, model = served(folder)
    written, _ = answer(handler, model, Request(body, content_type))
    np.testing.assert_allclose(json.loads(written), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    "accept", ["application/json", "text/csv", "application/jsonlines", "application/x-npy"]
)
def test_every_output_type_holds_what_torch_predicts(folder: Path, expected: np.ndarray, accept: str) -> None:
    handler, model = served(folder)
    written, content_type = answer(handler, model, Request(json.dumps(ROWS).encode(), accept=accept))
    assert content_type == accept
    if accept == "application/x-npy":
        with (folder / "out.npy").open("wb") as file:
            file.write(written)
        read = np.load(folder / "out.npy")
        assert read.dtype == np.float32
    elif accept == "application/json":
        read = np.array(json.loads(written))
    else:
        read = np.array([json.loads(f"[{line.strip('[]')}]") for line in written.decode().splitlines()])
    np.testing.assert_allclose(read, expected, rtol=1e-6)


def test_the_model_is_in_eval_mode_and_keeps_no_gradients(net: Net) -> None:
    handler, model = handler_for(Net().train())
    assert not model.training  # dropout would make answers random
    prediction = handler.predict_fn(torch.ones(1, 3), model, Context())
    assert not prediction.requires_grad


def test_one_row_and_any_shape_stay_what_they_are() -> None:
    handler, model = handler_for(module_of(lambda x: x.sum(-1)))
    assert ask(handler, model, [1, 2, 3]) == 6
    assert ask(handler, model, [[[1, 2], [3, 4]]]) == [[3, 7]]


def test_inputs_by_name_are_the_keyword_arguments_of_forward() -> None:
    module = TwoInputs().eval()
    handler, model = handler_for(module)
    request = {"inputs": {"ids": [[1, 2], [0, 4]], "scale": [[2], [3]]}}
    with pytest.raises(BadRequest, match=r"'ids' of shape \(2, 2\), float32.*dtype=int64"):
        ask(handler, model, request)
    result = ask(handler, model, request, "application/json; dtype=int64")
    with torch.inference_mode():
        vectors = module(torch.tensor([[1, 2], [0, 4]]), torch.tensor([[2], [3]]))["vectors"]
    np.testing.assert_allclose(result["vectors"], vectors, rtol=1e-6)
    assert result["ids"] == [[1, 2], [0, 4]]


def test_integers_of_npy_stay_integers(net: Net) -> None:
    handler, model = handler_for(TwoInputs().embedding)
    written, _ = answer(handler, model, Request(npy(np.array([1, 4])), "application/x-npy"))
    np.testing.assert_allclose(json.loads(written), model(torch.tensor([1, 4])).detach(), rtol=1e-6)


def test_inputs_take_the_floating_dtype_of_the_model() -> None:
    for dtype in (torch.float64, torch.bfloat16):
        handler, model = handler_for(torch.nn.Linear(3, 1).to(dtype))
        data = handler.input_fn(b"[[1, 2, 3.5]]", "application/json", Context())
        assert data.dtype == dtype
        result = ask(handler, model, [[1, 2, 3.5]])
        with torch.inference_mode():
            expected = model(torch.tensor([[1, 2, 3.5]], dtype=dtype))
        np.testing.assert_allclose(result, expected.double(), rtol=1e-6)


def test_bfloat16_is_written_as_float32() -> None:
    handler, model = handler_for(module_of(lambda x: x.bfloat16()))
    written, _ = answer(handler, model, Request(b"[[0.5, 3]]", accept="application/x-npy"))
    assert written.endswith(np.array([0.5, 3], np.float32).tobytes())


def test_the_dtype_setting_holds_for_text_and_the_header_goes_before_it() -> None:
    handler, model = handler_for(module_of(lambda x: x // 2), MMEKIT_PYTORCH_DTYPE="int64")
    assert ask(handler, model, [[3, 5]]) == [[1, 2]]
    assert ask(handler, model, [[3, 4.5]], "application/json; dtype=float32") == [[1.0, 2.0]]
    with pytest.raises(BadRequest, match="values that are no integers; the model reads int64"):
        ask(handler, model, [[3, 4.5]])
    with pytest.raises(BadRequest, match="Content-Type says dtype=int63; expected one of float32, "):
        ask(handler, model, [[3]], "application/json; dtype=int63")


def test_what_a_model_returns_besides_a_tensor_is_json_of_the_same_shape() -> None:
    for result, expected in [
        ((torch.ones(2), [torch.zeros(1)]), [[1, 1], [[0]]]),
        ({"a": torch.tensor(True), "b": (1, "x")}, {"a": True, "b": [1, "x"]}),
        (np.ones((1, 2)), [[1, 1]]),
        ([1, 2], [1, 2]),
        (torch.tensor([float("nan"), 1]), [None, 1]),
        (torch.eye(2).to_sparse(), [[1, 0], [0, 1]]),
    ]:
        handler, model = handler_for(module_of(lambda x, result=result: result))
        assert ask(handler, model, [1]) == expected


def test_types_with_room_for_one_tensor_refuse_several() -> None:
    handler, model = handler_for(module_of(lambda x: (x, x)))
    with pytest.raises(NotAcceptable, match="2 tensors and text/csv holds one: ask for application/json"):
        answer(handler, model, Request(b"[[1]]", accept="text/csv"))
    handler, model = handler_for(module_of(lambda x: {"only": x}))
    assert answer(handler, model, Request(b"[[1, 2]]", accept="text/csv")) == (b"1.0,2.0\n", "text/csv")


def test_csv_refuses_more_than_two_dimensions() -> None:
    handler, model = handler_for(module_of(lambda x: x))
    with pytest.raises(NotAcceptable, match=r"shape \(1, 1, 1\) cannot be written as text/csv"):
        answer(handler, model, Request(b"[[[1]]]", accept="text/csv"))


# The caller's mistakes


@pytest.mark.parametrize("kind", ["eager", "torchscript"])
def test_a_wrong_shape_is_the_callers_mistake_and_both_are_named(folder: Path, net: Net, kind: str) -> None:
    handler, model = served(folder) if kind == "torchscript" else handler_for(net)
    said = (
        "the model cannot take an input of shape (2, 4), float32: "
        "mat1 and mat2 shapes cannot be multiplied (2x4 and 3x8)"
    )
    with pytest.raises(BadRequest, match=re.escape(said) + "$"):
        ask(handler, model, [[1, 2, 3, 4], [5, 6, 7, 8]])


@pytest.mark.parametrize(
    ("model", "value", "said"),
    [
        (torch.nn.Conv2d(3, 4, 3), [[[[1.0]]]], "to have 3 channels, but got 1 channels"),
        (torch.nn.Conv2d(3, 4, 3), [[1.0]], "Expected 3D .* got input of size"),
        (torch.nn.LSTM(3, 2), [[1, 2, 3, 4]], "Expected 3, got 4"),
        (torch.nn.BatchNorm1d(3), [[1, 2, 3, 4]], "running_mean should contain 4 elements"),
        (torch.nn.LayerNorm(3), [[1, 2, 3, 4]], "normalized_shape"),
        (module_of(lambda x: x[:, 9]), [[1]], "index 9 is out of bounds"),
        (module_of(lambda x, y: x), [[1]], "missing 1 required positional argument"),
        (
            Net(),
            {"inputs": {"y": [1]}},
            r"inputs 'y' of shape \(1,\), float32: .*unexpected keyword argument 'y'",
        ),
    ],
)
def test_what_torch_says_about_an_input_is_told_to_the_caller(
    model: torch.nn.Module, value: object, said: str
) -> None:
    handler, model = handler_for(model)
    with pytest.raises(BadRequest, match="the model cannot take .*" + said):
        ask(handler, model, value)


def test_an_id_outside_an_embedding_is_the_callers_mistake() -> None:
    handler, model = handler_for(torch.nn.Embedding(4, 2))
    with pytest.raises(BadRequest, match="index out of range in self"):
        ask(handler, model, [9], "application/json; dtype=int64")


def test_torchscript_says_which_argument_it_lacks(folder: Path) -> None:
    handler, model = served(folder)
    with pytest.raises(
        BadRequest, match=r"the model cannot take inputs 'y' .*forward\(\) is missing value for argument 'x'"
    ):
        ask(handler, model, {"inputs": {"y": [1]}})


def test_an_error_of_the_models_own_stays_what_it_is() -> None:
    def forward(x: torch.Tensor) -> torch.Tensor:
        raise KeyError("vocabulary")

    def call_wrongly(x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x, x, x)  # type: ignore[call-arg]

    for wrong, kind in ((forward, KeyError), (call_wrongly, TypeError)):
        handler, model = handler_for(module_of(wrong))
        with pytest.raises(kind):
            ask(handler, model, [[1]])


@pytest.mark.parametrize(
    ("body", "content_type", "error", "said"),
    [
        (b"", "application/json", BadRequest, "the body is empty"),
        (b"", "application/x-npy", BadRequest, "the body is empty"),
        (b"1,2,x\n", "text/csv", BadRequest, "row 1, column 3: 'x' is not a number"),
        (b'[[1, "x"]]', "application/json", BadRequest, "row 1, column 2: 'x' is not a number"),
        (b"[[1, 2], [3]]", "application/json", BadRequest, "not all of the same shape"),
        (
            b'{"inputs": {"x": "text"}}',
            "application/json",
            BadRequest,
            "input 'x' is not an array of numbers",
        ),
        (
            b'{"inputs": {"x": [1, "a"]}}',
            "application/json",
            BadRequest,
            r"input 'x': 'a' at \[1\] is not a number",
        ),
        (b"x", "image/png", UnsupportedMediaType, "Content-Type is 'image/png'"),
        (npy(np.array(["a"])), "application/x-npy", BadRequest, "expected numbers"),
        (npy(np.ones(2, np.longdouble)), "application/x-npy", BadRequest, "torch has no such tensors"),
    ],
)
def test_a_body_that_cannot_be_read_says_why(
    folder: Path, body: bytes, content_type: str, error: type[Exception], said: str
) -> None:
    handler, model = served(folder)
    with pytest.raises(error, match=said):
        answer(handler, model, Request(body, content_type))


# Exported programs


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a program of two inputs: ids by place for any number of rows, scale by name."""
    folder = tmp_path_factory.mktemp("exported")
    rows = torch.export.Dim("rows", max=8)
    program = torch.export.export(
        TwoInputs(),
        (torch.zeros(2, 2, dtype=torch.long),),
        {"scale": torch.ones(2, 1)},
        dynamic_shapes={"ids": {0: rows}, "scale": {0: rows}},
    )
    torch.export.save(program, folder / "model.pt2")
    return folder


def test_an_exported_program_gets_the_dtypes_it_was_exported_with(exported: Path) -> None:
    handler, model = served(exported)
    result = ask(handler, model, {"inputs": {"ids": [[1, 2], [0, 4]], "scale": [[2], [3]]}})
    weights = model.module.embedding.weight.detach()
    vectors = torch.stack([2 * (weights[1] + weights[2]), 3 * (weights[0] + weights[4])])
    np.testing.assert_allclose(result["vectors"], vectors, rtol=1e-6)


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        (
            {"ids": [[1, 2, 3]], "scale": [[1]]},
            r"input 'ids' has shape \(1, 3\); the model was exported for \(\*, 2\)",
        ),
        ({"ids": [1], "scale": [[1]]}, r"input 'ids' has shape \(1,\); the model was exported for \(\*, 2\)"),
        (
            {"ids": [[1, 2.5]], "scale": [[1]]},
            "input 'ids' has values that are no integers; the model reads int64",
        ),
        ({"ids": [[1, 2]] * 9, "scale": [[1]] * 9}, "the input does not fit the exported model: .*8"),
        ({"ids": [[1, 2]]}, "the model takes ids, scale; the body names ids"),
        ({"ids": [[1, 9]], "scale": [[1]]}, "index out of range"),
    ],
)
def test_an_exported_program_says_what_it_was_exported_for(
    exported: Path, inputs: dict[str, Any], said: str
) -> None:
    handler, model = served(exported)
    with pytest.raises(BadRequest, match=said):
        ask(handler, model, {"inputs": inputs})


def test_an_exported_program_of_two_inputs_asks_for_names(exported: Path) -> None:
    handler, model = served(exported)
    with pytest.raises(BadRequest, match=r'the model takes ids, scale; .*send \{"inputs": \{"name"'):
        ask(handler, model, [[1, 2]])


def test_a_program_for_one_number_of_rows_is_never_stacked(tmp_path: Path, exported: Path) -> None:
    program = torch.export.export(Net(), (torch.zeros(2, 3),))
    torch.export.save(program, tmp_path / "model.pt2")
    assert not served(tmp_path, {"MMEKIT_PYTORCH_ROW_WISE": "true"})[0].row_wise
    assert served(exported, {"MMEKIT_PYTORCH_ROW_WISE": "true"})[0].row_wise


def test_a_users_model_fn_may_return_an_exported_program_or_its_module(net: Net) -> None:
    program = torch.export.export(net, (torch.zeros(2, 3),))
    for returned in (program, program.module()):
        handler, model = handler_for(returned)
        np.testing.assert_allclose(ask(handler, model, ROWS), net(torch.tensor(ROWS)).detach(), rtol=1e-6)


# Batches


def transformer(folder: Path, **environ: str) -> Transformer:
    handler = PyTorchHandler(environ)
    return Transformer(handler, None, str(folder), lambda request: Context(request or Request()), environ)


def test_rows_of_requests_are_stacked_only_where_the_model_opts_in(folder: Path) -> None:
    assert not transformer(folder).batches
    assert transformer(folder, MMEKIT_PYTORCH_ROW_WISE="true").batches


def test_stacked_requests_get_their_own_rows_and_errors(folder: Path, net: Net) -> None:
    model = transformer(folder, MMEKIT_PYTORCH_ROW_WISE="true")
    bodies = [b"[[1, 2, 3]]", b"[[4, 5, 6], [7, 8, 9]]", b"[[1, 2]]", b"[[x]]", b"[[0, 0, 1]]"]
    outcomes = model([Request(body) for body in bodies])
    for i in (0, 1, 4):
        rows = torch.tensor(json.loads(bodies[i]), dtype=torch.float32)
        # A product of more rows may add in another order: that shows where a sum is close to zero.
        np.testing.assert_allclose(json.loads(outcomes[i].body), net(rows).detach(), rtol=1e-5, atol=1e-6)
    assert isinstance(outcomes[2], BadRequest)
    assert re.search("1x2 and 3x8", str(outcomes[2]))
    assert isinstance(outcomes[3], BadRequest)


def test_named_inputs_and_nested_answers_are_stacked_and_cut() -> None:
    handler, _ = handler_for(TwoInputs())
    context = Context()
    bodies = [b'{"inputs": {"a": [[1]], "b": [[2]]}}', b'{"inputs": {"a": [[3], [5]], "b": [[4], [6]]}}']
    inputs = [handler.input_fn(body, None, context) for body in bodies]
    assert handler.group_key(inputs[0], context) == handler.group_key(inputs[1], context)
    stacked = handler.stack(inputs)
    assert handler.rows(stacked) == 3
    cut = handler.split({"sum": stacked["a"] + stacked["b"], "all": [stacked["a"]]}, [1, 2])
    assert cut[1]["sum"].tolist() == [[7], [11]]
    assert cut[0]["all"][0].tolist() == [[1]]


def test_inputs_that_differ_beyond_their_rows_are_not_stacked() -> None:
    handler, _ = handler_for(Net())
    context = Context()
    keys = [
        handler.group_key(handler.input_fn(body, content_type, context), context)
        for body, content_type in [
            (b"[[1, 2]]", None),
            (b"[[1, 2, 3]]", None),
            (b"[[1, 2]]", "application/json; dtype=int64"),
        ]
    ]
    assert len(set(keys)) == 3
    assert handler.group_key(torch.ones(3), context) is None


def test_an_answer_without_one_row_for_each_input_row_cannot_be_cut() -> None:
    handler, _ = handler_for(Net())
    for prediction in (torch.tensor(1.0), torch.ones(2), {"loss": 0.5}):
        with pytest.raises(ValueError, match="rows"):
            handler.split(prediction, [1, 2])


def test_a_users_own_functions_stand_on_the_same_handler(tmp_path: Path, net: Net) -> None:
    import types

    torch.save(net.state_dict(), tmp_path / "net.pth")
    module = types.ModuleType("inference")
    exec(
        "from mmekit_handlers.pytorch import load_weights\n"
        "from tests.support.pytorch import Net\n"
        "def model_fn(model_dir):\n    return load_weights(Net, model_dir + '/net.pth')\n"
        "def output_fn(prediction, accept):\n    return str(tuple(prediction.shape)), 'text/plain'\n",
        module.__dict__,
    )
    functions = UserFunctions.of(module)
    model = Transformer(
        PyTorchHandler({}), functions, str(tmp_path), lambda request: Context(request or Request()), {}
    )
    [outcome] = model([Request(json.dumps(ROWS).encode())])
    assert (outcome.body, outcome.content_type) == (b"(2, 2)", "text/plain")


def test_a_users_dict_of_inputs_goes_to_the_model_as_it_is() -> None:
    handler, model = handler_for(module_of(lambda batch: batch["x"] + 1))
    assert handler.predict_fn({"x": torch.ones(1)}, model, Context()).tolist() == [2]


# Memory and device


def test_a_request_that_needs_too_much_memory_is_out_of_resources() -> None:
    handler, model = handler_for(module_of(lambda x: torch.empty(10**15)))
    with pytest.raises(
        OutOfResources, match=r"memory ran out: .*can't allocate memory: you tried to allocate"
    ) as caught:
        ask(handler, model, [[1]])
    assert caught.value.__context__ is None  # the failed call's tensors are free


def test_a_model_that_does_not_fit_into_its_grant_is_out_of_resources(tmp_path: Path) -> None:
    save_torchscript(torch.nn.Linear(4096, 4096), tmp_path / "model.pt")  # 64 MiB
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    status = Path("/proc/self/status").read_text()
    used = int(status.partition("VmData:")[2].split()[0]) << 10
    resource.setrlimit(resource.RLIMIT_DATA, (used + (32 << 20), hard))
    try:
        with pytest.raises(OutOfResources, match=r"memory ran out: .*can't allocate memory"):
            served(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def test_errors_of_a_cuda_device_are_told_apart() -> None:
    cpu = torch.device("cpu")
    for text in ("CUDA out of memory. Tried to allocate 2 GiB", "CUDA error: CUBLAS_STATUS_ALLOC_FAILED"):
        assert isinstance(device_failure(RuntimeError(text), cpu), OutOfResources)
    assert isinstance(device_failure(torch.OutOfMemoryError("no"), cpu), OutOfResources)
    assert device_failure(RuntimeError("CUDA error: invalid argument"), cpu) is None
    assert FatalDeviceError.fatal
    assert FatalDeviceError("x").status == 500


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what is said where there is no GPU")
@pytest.mark.parametrize("setting", ["cuda", "cuda:1"])
def test_cuda_without_a_gpu_fails_the_load_and_says_so(folder: Path, setting: str) -> None:
    with pytest.raises(
        ModelLoadError, match=rf"MMEKIT_PYTORCH_DEVICE is '{setting}', but torch .*; set it to auto or cpu"
    ):
        served(folder, {"MMEKIT_PYTORCH_DEVICE": setting})


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what happens where there is no GPU")
@pytest.mark.parametrize("environ", [{}, {"MMEKIT_GPU_ID": "0"}, {"MMEKIT_PYTORCH_DEVICE": "cpu"}])
def test_the_cpu_is_taken_where_there_is_no_gpu(folder: Path, environ: dict[str, str]) -> None:
    handler, model = served(folder, environ)
    assert {tensor.device.type for tensor in model.parameters()} == {"cpu"}
    assert handler.device_bytes(model) == 0
    handler.release()


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        (
            "MMEKIT_PYTORCH_DEVICE",
            "gpu",
            "MMEKIT_PYTORCH_DEVICE is 'gpu'; expected auto, cpu, cuda or cuda:N",
        ),
        (
            "MMEKIT_PYTORCH_DTYPE",
            "double",
            "MMEKIT_PYTORCH_DTYPE is 'double'; expected auto or one of float32, ",
        ),
        ("MMEKIT_PYTORCH_THREADS", "0", "MMEKIT_PYTORCH_THREADS is '0'; expected a whole number from 1"),
        ("MMEKIT_PYTORCH_ROW_WISE", "maybe", "MMEKIT_PYTORCH_ROW_WISE is 'maybe'; expected true or false"),
        ("MMEKIT_GPU_ID", "x", "MMEKIT_GPU_ID is 'x'; expected the number of a GPU"),
    ],
)
def test_a_setting_that_cannot_be_used_is_named(folder: Path, name: str, value: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        served(folder, {name: value})
