"""The conformance kit on images: ours, the real Multi Model Server's, stand-ins that break one clause each.

The verdicts on the first two are those of docs/contract.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mmekit_toolkit.contract.clauses import CLAUSES
from tests.image.containers import build, containers, docker
from tests.toolkit.contract.grades import grades
from tests.toolkit.contract.kit import Report, contract
from tests.toolkit.contract.sabotage.all import SABOTAGES

SABOTAGE = Path(__file__).parent.parent / "toolkit" / "contract" / "sabotage"

LABEL = "com.amazonaws.sagemaker.capabilities."
OURS = "label=mmekit.contract"
MULTI_MODELS, BIND_TO_PORT = f"--label={LABEL}multi-models=true", f"--label={LABEL}accept-bind-to-port=true"

#: Runs of the kit at a time: they wait more than they work.
WORKERS = 3

#: Take long, and are checked by tests/toolkit/contract in the form of a command.
SLOW = {"list-many", "ping-under-load"}

#: Sabotages that show in a container alone, or otherwise than in a process.
IN_CONTAINERS = [
    *[name for name, sabotage in SABOTAGES.items() if sabotage.image_only],
    "does-not-know-serve",
    "ignores-sigterm",
    "ignores-the-port-variable",
    "keeps-a-request-log-in-the-model-folder",
    "unload-answers-before-the-memory-is-free",
    "writes-bytecode-beside-the-model",
]

#: Image → the clause that it breaks, or None; each is built from the stand-in.
IMAGES = {
    "whole": None,
    "not-multi-model": "label-multi-models",
    "not-bound-to-port": "label-accept-bind-to-port",
    "in-a-shell": "exec-form-entrypoint",
    "in-a-strict-shell": "exec-form-entrypoint",
}


def tag(name: str) -> str:
    return f"mmekit-test:stand-in-{name}"


@pytest.fixture(scope="module")
def stand_ins(engine: None) -> None:
    """The stand-in's images, each with what it lacks."""
    for name, labels in (
        ("whole", (MULTI_MODELS, BIND_TO_PORT)),
        ("not-multi-model", (BIND_TO_PORT,)),
        ("not-bound-to-port", (MULTI_MODELS,)),
    ):
        build(SABOTAGE, *labels, f"--tag={tag(name)}")
    strict = 'SHELL ["/bin/bash", "-o", "pipefail", "-c"]\n'
    for name, shell in (("in-a-shell", ""), ("in-a-strict-shell", strict)):
        text = f"FROM {tag('whole')}\n{shell}ENTRYPOINT exec python -m sabotage serve\n"
        docker("build", f"--tag={tag(name)}", "-", text=text, timeout_s=120)


Run = Callable[[str], Report]


@pytest.fixture(scope="module")
def left_before(engine: None) -> set[str]:
    """Containers of the kit that an earlier run, which was killed, has left on the engine."""
    return containers(OURS)


@pytest.fixture(scope="module")
def kit(request: pytest.FixtureRequest, left_before: set[str]) -> Iterator[Run]:
    """Return the report of an image or sabotage; those of this session are made several at a time."""
    chosen = [
        item.callspec.params["subject"]
        for item in request.session.items
        if item.path == request.path and hasattr(item, "callspec")
    ]
    images = {name: request.getfixturevalue(name) for name in ("image", "mms_image") if name in chosen}
    if len(images) < len(chosen):
        request.getfixturevalue("stand_ins")
    with ThreadPoolExecutor(WORKERS) as workers:
        made = {name: workers.submit(contract, image, timeout_s=900) for name, image in images.items()}
        made |= {name: workers.submit(on_stand_in, name) for name in chosen if name not in images}
        yield lambda name: made[name].result()
        for report in made.values():
            report.cancel()


def on_stand_in(name: str) -> Report:
    """Run all clauses but the slow ones on an image of IMAGES, or on the stand-in with a sabotage."""
    clauses = [f"--clause={clause.name}" for clause in CLAUSES if clause.name not in SLOW]
    if name in IMAGES:
        return contract(tag(name), *clauses, timeout_s=600)
    return contract(tag("whole"), "--start-timeout=20", f"--env=SABOTAGE={name}", *clauses, timeout_s=600)


@pytest.mark.parametrize("subject", ["image", "mms_image"])
def test_the_verdicts_are_those_of_the_documentation(subject: str, kit: Run) -> None:
    report = kit(subject)
    verdicts = {clause["name"]: clause["verdict"] for clause in report.clauses}
    documented = {name: row[0 if subject == "image" else 1] for name, row in grades().items()}
    varying = {name: verdicts[name] for name, verdict in documented.items() if verdict == "varies"}
    assert set(varying.values()) <= {"passed", "failed"}
    assert verdicts == {**documented, **varying}, report.failures


@pytest.mark.parametrize("subject", ["image"])
def test_our_image_passes_every_clause(subject: str, kit: Run) -> None:
    report = kit(subject)
    assert report.exit_code == 0
    assert report.named("passed") == [clause["name"] for clause in report.clauses]


@pytest.mark.parametrize("subject", IMAGES)
def test_what_an_image_says_of_itself_is_checked(subject: str, kit: Run) -> None:
    report = kit(subject)
    clause = IMAGES[subject]
    assert report.named("failed") == ([clause] if clause else []), report.failures
    assert report.exit_code == (3 if clause else 0)
    # Without the label, an image need not listen on another port.
    assert report.named("skipped") == (["port-from-variable"] if subject == "not-bound-to-port" else [])


@pytest.mark.parametrize("subject", IN_CONTAINERS)
def test_a_container_that_breaks_one_clause_is_named_by_that_one(subject: str, kit: Run) -> None:
    report = kit(subject)
    assert report.named("failed") == [SABOTAGES[subject].clause], report.failures
    assert report.exit_code == 3


def test_no_container_is_left(kit: Run, left_before: set[str]) -> None:
    """After all others: pytest runs a file's tests in their order."""
    assert containers(OURS) <= left_before
