"""What callers are told of an exception in people's code."""

from __future__ import annotations

import logging
from importlib.util import find_spec

import pytest

from mmekit.errors import BadRequest, MmekitError
from mmekit.worker import failures
from mmekit.worker.messages import Failure
from tests.support.models import MODELS, load_message, loaded, request


def failure_of(name: str, body: bytes = b"", batch_size: int = 1) -> Failure:
    """Ask a model of tests/models that raises; return what is answered."""
    with loaded(load_message(MODELS / name, batch_size=batch_size)) as model:
        try:
            (result,) = model([request(body)])
        except SystemExit as error:
            result = error
        assert isinstance(result, BaseException)
        return failures.failure_of(result, model.code_dirs, "invoke")


MMS = "InternalServerException"


@pytest.mark.parametrize(
    ("name", "body", "status", "kind", "text"),
    [
        pytest.param(
            "raises_on_predict",
            b"[1]",
            500,
            MMS,
            "Prediction failed: KeyError: 'label' (inference.py:6)",
            marks=pytest.mark.skipif(find_spec("numpy") is None, reason="the JSON codec needs numpy"),
        ),
        (
            "exits_in_handle",
            b"",
            500,
            MMS,
            "Prediction failed: the code called exit('giving up') while predicting (inference.py:9)",
        ),
        (
            "out_of_memory_on_predict",
            b"",
            507,
            MMS,
            "Out of resources: MemoryError (inference.py:6)",
        ),
        (
            "handle_raises",
            b"memory",
            507,
            MMS,
            "Out of resources: MemoryError (service.py:17)",
        ),
        ("handle_raises", b"bad row", 503, MMS, "Prediction failed: ValueError: bad row (service.py:18)"),
        ("handle_raises", b"422", 422, MMS, "the picture is too small"),
    ],
)
def test_an_exception_is_answered_with_its_class_its_text_and_its_line(
    name: str, body: bytes, status: int, kind: str, text: str
) -> None:
    assert failure_of(name, body) == Failure(status, kind, text)


def test_what_a_program_returns_must_be_a_body() -> None:
    assert "transform_fn returned a object; expected str, bytes" in failure_of("returns_wrong_type").message


class _Raises(MmekitError):
    status = 418
    type = "TeapotException"


def described(error: BaseException, phase: failures.Phase = "invoke") -> Failure:
    return failures.failure_of(error, ["/nowhere"], phase)


def test_our_own_errors_keep_status_type_and_text() -> None:
    assert described(_Raises("short and stout")) == Failure(418, "TeapotException", "short and stout")
    wrapped = failures.HandlerRaised("Prediction failed")
    wrapped.__cause__ = BadRequest("row 3, column 2: 'a' is not a number")
    assert described(wrapped) == Failure(400, "BadRequestException", "row 3, column 2: 'a' is not a number")


def test_an_allocators_error_is_out_of_memory() -> None:
    error = RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
    assert (described(error).status, described(error).type) == (507, MMS)
    assert described(RuntimeError("weights"), "load").status == 500


def test_an_error_raised_from_a_memory_error_is_out_of_memory() -> None:
    error = RuntimeError("cannot load")
    error.__cause__ = MemoryError()
    assert described(error, "load") == Failure(
        507, MMS, "Failed to start workers: out of memory: RuntimeError: cannot load"
    )


@pytest.mark.parametrize(
    ("code", "status"), [(400, 400), (599, 599), (200, 500), (99, 500), (True, 500), ("x", 500)]
)
def test_an_exceptions_own_status_counts_when_it_is_an_error(code: object, status: int) -> None:
    error = ValueError("told")
    error.status_code = code  # type: ignore[attr-defined]
    assert described(error).status == status


def test_endless_recursion_is_named() -> None:
    def again() -> None:
        again()

    with pytest.raises(RecursionError) as raised:
        again()
    assert "RecursionError: maximum recursion depth exceeded" in described(raised.value).message


def test_an_interrupt_is_described_like_any_other() -> None:
    assert described(KeyboardInterrupt()).message == "Prediction failed: KeyboardInterrupt"


def test_a_long_text_is_bounded_and_says_so() -> None:
    message = described(ValueError("x" * 1_000_000)).message
    assert len(message) < failures.MAX_MESSAGE + 40
    assert message.endswith("characters, see the log)")


def test_a_text_that_cannot_be_made_is_no_second_failure() -> None:
    class Odd(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    assert described(Odd()).message == "Prediction failed: Odd: <its text cannot be made: RuntimeError>"


def test_a_module_missing_inside_the_models_own_package_is_said_to_be() -> None:
    code = str(MODELS / "code_dir" / "code")
    error = ModuleNotFoundError("No module named 'helpers.gone'", name="helpers.gone")
    assert failures.failure_of(error, [code], "load").message.endswith("the model's helpers has no gone")


def test_the_log_gets_the_traceback_and_the_callers_mistakes_get_none(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    try:
        raise ValueError("inside")
    except ValueError as error:
        failures.log_failure(error, "iris", described(error))
    assert "iris: Prediction failed: ValueError: inside" in caplog.text
    assert "Traceback (most recent call last)" in caplog.text
    caplog.clear()
    mistake = BadRequest("row 1")
    failures.log_failure(mistake, "iris", described(mistake))
    assert caplog.messages == ["iris: row 1"]


def test_a_huge_traceback_keeps_its_beginning_and_end() -> None:
    text = failures.traceback_text(ValueError("x" * 200_000 + "end"))
    assert len(text) < failures.MAX_TRACEBACK + 100
    assert text.startswith("ValueError: xxx")
    assert text.endswith("xend")
