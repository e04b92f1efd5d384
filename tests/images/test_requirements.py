from __future__ import annotations

from typing import Any

import pytest

from mmekit_toolkit.images.image import read
from mmekit_toolkit.images.requirements import Check, State, check, faults, manifest

LABELS = {
    "com.amazonaws.sagemaker.capabilities.multi-models": "true",
    "com.amazonaws.sagemaker.capabilities.accept-bind-to-port": "true",
}
GOOD = {"Labels": LABELS, "Entrypoint": ["mmekit"], "User": "", "ExposedPorts": {"8080/tcp": {}}}


def judge(architecture: str = "amd64", media_type: str | None = None, **config: Any) -> dict[str, Check]:
    """Return name → check of an image that is good but for these fields of the engine's answer."""
    answer: dict[str, Any] = {
        "Id": "sha256:" + "1" * 64,
        "Os": "linux",
        "Architecture": architecture,
        "Size": 10,
        "Config": {**GOOD, **config},
    }
    if media_type:
        answer["Descriptor"] = {"mediaType": media_type}
    return {each.name: each for each in check(read("churn:1.0", answer))}


def test_a_good_image_has_nothing_but_good_checks() -> None:
    assert {each.state for each in judge().values()} == {State.OK}


@pytest.mark.parametrize(
    "labels", [None, {}, {**LABELS, "com.amazonaws.sagemaker.capabilities.multi-models": "1"}]
)
def test_without_its_label_sagemaker_refuses_the_image(labels: dict[str, str] | None) -> None:
    found = judge(Labels=labels)["multi-model label"]
    assert found.state is State.FAULT
    assert "LABEL com.amazonaws.sagemaker.capabilities.multi-models=true" in found.advice


def test_without_the_port_label_pipelines_refuse_it() -> None:
    only = {"com.amazonaws.sagemaker.capabilities.multi-models": "true"}
    found = judge(Labels=only)["bind-to-port label"]
    assert (found.state, "pipelines" in found.advice) == (State.WARNING, True)


@pytest.mark.parametrize(
    ("words", "state", "advice"),
    [
        (["mmekit"], State.OK, ""),
        (["python", "-m", "mmekit"], State.OK, ""),
        (["/bin/sh", "-c", "mmekit serve"], State.FAULT, 'ENTRYPOINT ["mmekit"]'),
        (["/bin/bash", "-c", "exec serve.sh"], State.FAULT, "exec form"),
        (["bash", "start.sh"], State.OK, ""),
        (None, State.WARNING, "`serve`"),
        ([], State.WARNING, "`serve`"),
    ],
)
def test_the_entry_point_takes_serve_and_signals(words: list[str] | None, state: State, advice: str) -> None:
    found = judge(Entrypoint=words)["entry point"]
    assert found.state is state
    assert advice in found.advice


@pytest.mark.parametrize(
    ("user", "state"),
    [("0:0", State.OK), ("root", State.OK), ("app", State.WARNING), ("1000:0", State.WARNING)],
)
def test_sagemaker_asks_for_root(user: str, state: State) -> None:
    assert judge(User=user)["user"].state is state


def test_a_port_that_is_not_exposed_is_a_warning() -> None:
    assert judge(ExposedPorts={"80/tcp": {}})["port"].state is State.WARNING
    assert judge(ExposedPorts=None)["port"].state is State.WARNING


@pytest.mark.parametrize(
    ("architecture", "state"), [("amd64", State.OK), ("arm64", State.WARNING), ("s390x", State.FAULT)]
)
def test_instances_are_amd64_or_graviton(architecture: str, state: State) -> None:
    assert judge(architecture)["platform"].state is state


@pytest.mark.parametrize(
    "media_type",
    [
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
    ],
)
def test_sagemaker_takes_dockers_manifest_alone(media_type: str) -> None:
    found = judge(media_type=media_type)["manifest"]
    assert found.state is State.FAULT
    assert "mmekit build" in found.advice
    assert (
        judge(media_type="application/vnd.docker.distribution.manifest.v2+json")["manifest"].state is State.OK
    )


def test_an_engine_that_knows_no_manifest_before_a_push_is_not_judged_by_it() -> None:
    assert "manifest" not in judge()
    assert manifest(None) == []


def test_faults_are_what_sagemaker_does_not_forgive() -> None:
    found = judge(Labels={}, User="app")
    assert [each.name for each in faults(found.values())] == ["multi-model label"]
