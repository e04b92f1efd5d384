"""What loads are expected to need: first guesses, what kinds and archives taught, and their bounds."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmekit.needs import UNKNOWN_LOAD_MS, Subject, sizes_by_suffix
from mmekit.server.estimates import Estimator

MIB = 1024 * 1024
XGBOOST = "mmekit_handlers.xgboost:XGBoostHandler"
SKLEARN = "mmekit_handlers.sklearn:SklearnHandler"
PYTORCH = "mmekit_handlers.pytorch:PyTorchHandler"


def subject(
    runtime: str | None, suffix: str, size: float, url: str = "/m/1", own_code: bool = False
) -> Subject:
    return Subject(url, runtime, own_code, ((suffix, int(size)),))


#: Runtime, suffix, file MiB, and what was measured: memory in MiB, load ms in a warm worker.
MEASURED = [
    (SKLEARN, ".pkl", 0.002, 0.08, 0.28),
    (SKLEARN, ".pkl", 4.28, 9.05, 7.1),
    (XGBOOST, ".ubj", 0.30, 1.2, 2.6),
    (XGBOOST, ".json", 0.46, 5.3, 25.1),
    (XGBOOST, ".ubj", 1.80, 8.3, 20.1),
    (XGBOOST, ".json", 2.5, 25.5, 141),
    (PYTORCH, ".pt", 0.28, 4.0, 8.6),
    (PYTORCH, ".pt", 64.4, 68.1, 270),
    (PYTORCH, ".safetensors", 64.4, 0.03, 2.5),
]


@pytest.mark.parametrize(("runtime", "suffix", "mib", "needed_mib", "ms"), MEASURED)
def test_first_guesses_cover_what_was_measured(
    runtime: str, suffix: str, mib: float, needed_mib: float, ms: float
) -> None:
    estimate = Estimator().estimate(subject(runtime, suffix, mib * MIB))

    assert estimate.memory_bytes >= needed_mib * MIB
    assert ms * 0.9 <= estimate.load_ms <= ms * 12 + 5
    assert estimate.origin.startswith("first guess for ")


def test_a_first_guess_names_its_rule() -> None:
    origin = Estimator().estimate(subject(XGBOOST, ".json", MIB)).origin

    assert origin == f"first guess for {XGBOOST} .json files: 10 × file + 8 MiB"


@pytest.mark.parametrize(("runtime", "own_code"), [(None, True), (PYTORCH, True), (None, False)])
def test_code_that_nobody_has_timed_is_taken_for_slow(runtime: str | None, own_code: bool) -> None:
    model = subject(runtime, ".pkl", 1000, own_code=own_code)

    assert Estimator().estimate(model).load_ms >= UNKNOWN_LOAD_MS


def test_own_code_is_timed_archive_by_archive() -> None:
    estimator = Estimator()
    for _ in range(100):
        estimator.loaded(subject(None, ".pkl", 1000, own_code=True), peak_bytes=MIB, load_ms=3.0)

    known = estimator.estimate(subject(None, ".pkl", 1000, own_code=True))
    other = estimator.estimate(subject(None, ".pkl", 1000, url="/m/2", own_code=True))

    assert (known.load_ms, other.load_ms) == (3.0, UNKNOWN_LOAD_MS)


def test_an_archive_that_was_loaded_before_is_known() -> None:
    estimator = Estimator()
    model = subject(XGBOOST, ".json", 2 * MIB)
    estimator.loaded(model, peak_bytes=24 * MIB, load_ms=100.0)

    estimate = estimator.estimate(model)

    assert (estimate.memory_bytes, estimate.load_ms) == (31 * MIB, 100.0)
    assert estimate.origin == "measured when it was loaded before"


def test_the_same_url_with_other_files_is_another_archive() -> None:
    estimator = Estimator()
    estimator.loaded(subject(XGBOOST, ".ubj", 100), peak_bytes=900 * MIB, load_ms=100.0)

    assert "measured" not in estimator.estimate(subject(XGBOOST, ".ubj", 101)).origin


def test_small_loads_teach_what_a_small_load_of_that_kind_needs() -> None:
    estimator = Estimator()
    for number in range(60):
        estimator.loaded(subject(SKLEARN, ".pkl", 2000, url=f"/m/{number}"), peak_bytes=80_000, load_ms=0.5)

    small = estimator.estimate(subject(SKLEARN, ".pkl", 2000, url="/m/new"))
    large = estimator.estimate(subject(SKLEARN, ".pkl", 100 * MIB, url="/m/large"))

    assert small.memory_bytes < 1.5 * MIB
    assert 200 * MIB <= large.memory_bytes <= 260 * MIB  # the ratio is still the first guess
    assert small.origin == f"learned from 60 loads of {SKLEARN} .pkl files"


def test_one_hungry_load_raises_the_ratio_at_once_and_it_comes_down_slowly() -> None:
    estimator = Estimator()

    def need() -> int:
        return estimator.estimate(subject(PYTORCH, ".pt", 100 * MIB, url="/m/new")).memory_bytes

    estimator.loaded(subject(PYTORCH, ".pt", 50 * MIB), peak_bytes=408 * MIB, load_ms=100.0)
    assert need() >= 800 * MIB
    estimator.loaded(subject(PYTORCH, ".pt", 50 * MIB, url="/m/2"), peak_bytes=58 * MIB, load_ms=100.0)
    assert need() >= 700 * MIB
    for number in range(60):
        estimator.loaded(
            subject(PYTORCH, ".pt", 50 * MIB, url=f"/m/{number}"), peak_bytes=58 * MIB, load_ms=100.0
        )
    assert need() < 200 * MIB


def test_one_slow_load_does_not_make_a_kind_slow_for_good() -> None:
    estimator = Estimator()
    for number in range(40):
        load_ms = 80.0 if number == 5 else 4.0
        estimator.loaded(
            subject(XGBOOST, ".ubj", 400_000, url=f"/m/{number}"), peak_bytes=MIB, load_ms=load_ms
        )

    assert estimator.estimate(subject(XGBOOST, ".ubj", 400_000, url="/m/new")).load_ms < 10.0


def test_after_a_load_that_ran_out_the_next_needs_what_that_had_reached() -> None:
    estimator = Estimator()
    model = subject(SKLEARN, ".pkl", MIB)
    estimator.ran_out(model, peak_bytes=500 * MIB)

    estimate = estimator.estimate(model)

    assert estimate.memory_bytes == 500 * MIB
    assert estimate.origin == "reached when its last load ran out of memory"
    estimator.loaded(model, peak_bytes=40 * MIB, load_ms=10.0)
    assert estimator.estimate(model).memory_bytes == 51 * MIB


def test_a_load_that_ran_out_early_does_not_lower_the_estimate() -> None:
    estimator = Estimator()
    model = subject(SKLEARN, ".pkl", 10 * MIB)
    before = estimator.estimate(model)
    estimator.ran_out(model, peak_bytes=MIB)

    assert before == estimator.estimate(model)


def test_the_archives_used_last_are_remembered() -> None:
    estimator = Estimator(max_archives=3)
    models = [subject(SKLEARN, ".pkl", 1000, url=f"/m/{number}") for number in range(4)]
    for model in models[:3]:
        estimator.loaded(model, peak_bytes=MIB, load_ms=1.0)
    estimator.estimate(models[0])
    estimator.loaded(models[3], peak_bytes=MIB, load_ms=1.0)

    known = ["before" in estimator.estimate(model).origin for model in models]

    assert known == [True, False, True, True]


@given(
    st.lists(st.tuples(st.integers(0, 2**34), st.integers(0, 2**36), st.floats(0, 1e6)), max_size=30),
    st.integers(0, 2**34),
)
def test_no_history_makes_an_estimate_negative_or_an_archives_below_its_last_peak(
    loads: list[tuple[int, int, float]], size: int
) -> None:
    estimator = Estimator()
    for number, (file_bytes, peak, load_ms) in enumerate(loads):
        model = subject(SKLEARN, ".pkl", file_bytes, url=f"/m/{number}")
        estimator.loaded(model, peak, load_ms)
        assert estimator.estimate(model).memory_bytes >= peak
    estimate = estimator.estimate(subject(SKLEARN, ".pkl", size, url="/m/new"))
    assert estimate.memory_bytes > 0
    assert estimate.load_ms >= 0


def test_sizes_are_added_up_by_suffix_without_code(tmp_path: Path) -> None:
    (tmp_path / "code").mkdir()
    files = {"a.JSON": 5, "code/b.json": 6, "code/inference.py": 100, "model": 7, "x.v123": 8, "c.ubj": 1}
    for name, size in files.items():
        (tmp_path / name).write_bytes(bytes(size))
    (tmp_path / "gone.pkl").symlink_to("nowhere")

    assert sizes_by_suffix(str(tmp_path)) == (("", 15), (".json", 11), (".ubj", 1))


def test_the_kind_is_that_of_most_bytes() -> None:
    model = Subject("/m", XGBOOST, False, (("", 5), (".json", 100), (".ubj", 3)))

    assert model.kind == (XGBOOST, ".json")
    assert model.data_bytes == 108
    assert Subject("/m", None, True, ()).kind == ("own code", "")
