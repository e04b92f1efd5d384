"""From values to a report: goals, ratios within a round, and what has no value."""

from __future__ import annotations

from pathlib import Path

from benchmarks.report import markdown
from benchmarks.results import Key, Results, machine

ABOUT = {
    "command": "python -m benchmarks run",
    "machine": machine(),
    "versions": {"python": "3.11.7"},
    "memory_from": "control group",
    "minutes": 1.0,
}


def results(values: dict[tuple[str, str, str, str], list[float]]) -> Results:
    made = Results(dict(ABOUT))
    for key, row in values.items():
        for number, value in enumerate(row):
            made.record(Key(*key), "", number, value)
    return made


def line(text: str, start: str) -> str:
    return next(line for line in text.splitlines() if line.startswith(f"| {start} |"))


def test_a_goal_is_met_when_the_median_is_within_its_bound() -> None:
    load = "loads", "xgboost ubj, shared worker", "mmekit", "load"
    assert line(markdown(results({load: [9, 10, 40]})), "load of XGBoost into a shared worker") == (
        "| load of XGBoost into a shared worker | ≤ 15 ms | 10.0 (9.00–40.0) | met |"
    )
    assert line(markdown(results({load: [16, 17]})), "load of XGBoost into a shared worker").endswith(
        "**missed** |"
    )
    assert "not measured" in line(markdown(results({})), "load of XGBoost into a shared worker")


def test_ratios_are_taken_within_a_round() -> None:
    case = "warm", "xgboost c32"
    measured = results(
        {
            (*case, "mmekit", "throughput"): [100, 1000, 500],
            (*case, "inline", "throughput"): [10, 200, 50],
        }
    )
    goal = line(markdown(measured), "XGBoost, c32: throughput to inline")
    assert goal == "| XGBoost, c32: throughput to inline | ≥ 4 × | 10.0 (5.00–10.0) | met |"


def test_a_round_without_a_value_on_one_side_is_left_out_of_the_ratio() -> None:
    case = "warm", "xgboost c1"
    measured = results({(*case, "mmekit", "p50"): [120, 999], (*case, "inline", "p50"): [100]})
    assert "| 1.20 |" in line(markdown(measured), "XGBoost, c1: p50 to inline")


def test_one_more_model_is_counted_at_the_largest_number_loaded() -> None:
    case = "memory", "xgboost, shared worker", "mmekit"
    measured = results(
        {
            (*case, "1 models"): [300],
            (*case, "10 models"): [320],
            (*case, "marginal, 10 models"): [2.2],
            (*case, "100 models"): [365],
            (*case, "marginal, 100 models"): [0.5],
        }
    )
    text = markdown(measured)
    assert "| 0.50 | met |" in line(text, "memory of one more model, shared worker")
    assert line(text, "xgboost, shared worker") == (
        "| xgboost, shared worker | mmekit | 300 | 320 | 365 | 0.50 |"
    )


def test_what_failed_is_named_and_a_file_holds_everything(tmp_path: Path) -> None:
    measured = results({("zipf", "50 models c16", "mms", "throughput"): [450.5, 460.0]})
    measured.invalid.append("warm, null c1, mms: not a valid run: 10 answers, errors {'status': 3}")
    measured.save(tmp_path / "new" / "results.json")
    text = markdown(Results.read(tmp_path / "new" / "results.json"))
    assert text == markdown(measured)
    assert "- warm, null c1, mms: not a valid run: 10 answers, errors {'status': 3}" in text
