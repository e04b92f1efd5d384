"""Promises that can be read off the Dockerfiles; tests/image builds and runs them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
FILES = ["Dockerfile.cpu", "Dockerfile.gpu"]


def _instructions(name: str) -> list[tuple[str, str]]:
    """Instruction and arguments, with continued lines joined and comments dropped."""
    text = re.sub(r"^\s*#.*\n", "", (ROOT / name).read_text(), flags=re.MULTILINE)
    lines = re.sub(r"\s*\\\n\s*", " ", text).splitlines()
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in lines if line)]


def _final(name: str) -> list[tuple[str, str]]:
    instructions = _instructions(name)
    last = max(i for i, (word, _) in enumerate(instructions) if word == "FROM")
    return instructions[last:]


@pytest.mark.parametrize("name", FILES)
def test_the_base_image_and_the_frameworks_are_arguments(name: str) -> None:
    instructions = _instructions(name)
    assert instructions[0] == ("ARG", "BASE_IMAGE=python:3.11-slim-bookworm")
    assert [rest for word, rest in instructions if word == "FROM"] == [
        "${BASE_IMAGE} AS build",
        "${BASE_IMAGE}",
    ]
    assert ("ARG", "FRAMEWORKS=xgboost,sklearn,pytorch,sagemaker") in instructions
    assert ("ARG", "ENGINE=native") in instructions


@pytest.mark.parametrize("name", FILES)
def test_https_works_in_every_image(name: str) -> None:
    installs = [rest for word, rest in _instructions(name) if word == "RUN" and '".[' in rest]
    assert installs
    assert all('".[tls' in rest for rest in installs)


@pytest.mark.parametrize("name", FILES)
def test_the_commands_of_multi_model_server_come_first_on_path_and_only_with_the_native_engine(
    name: str,
) -> None:
    [aliases] = [rest for word, rest in _instructions(name) if word == "RUN" and "mxnet-model-server" in rest]
    assert aliases.startswith('[ "$ENGINE" != native ] || ')
    settings = " ".join(rest for word, rest in _final(name) if word == "ENV")
    assert "PATH=/usr/local/lib/mmekit/bin:$PATH" in settings
    assert "/install/lib/mmekit/bin/" in aliases


@pytest.mark.parametrize("name", FILES)
def test_both_sagemaker_labels_are_set(name: str) -> None:
    labels = " ".join(rest for word, rest in _final(name) if word == "LABEL")
    assert "com.amazonaws.sagemaker.capabilities.multi-models=true" in labels
    assert "com.amazonaws.sagemaker.capabilities.accept-bind-to-port=true" in labels


@pytest.mark.parametrize("name", FILES)
def test_the_entry_point_is_in_exec_form_so_that_signals_arrive(name: str) -> None:
    final = dict(_final(name))
    assert json.loads(final["ENTRYPOINT"]) == ["mmekit"]
    assert json.loads(final["CMD"]) == ["serve"]
    assert final["EXPOSE"] == "8080"


@pytest.mark.parametrize("name", FILES)
def test_the_platform_decides_the_port_and_the_user(name: str) -> None:
    words = [word for word, _ in _final(name)]
    text = (ROOT / name).read_text()
    assert "USER" not in words
    assert "SAGEMAKER_BIND_TO_PORT" not in text
    assert "SAGEMAKER_MULTI_MODEL" not in text


@pytest.mark.parametrize("name", FILES)
def test_the_final_stage_installs_no_system_packages(name: str) -> None:
    runs = [rest for word, rest in _final(name) if word == "RUN"]
    assert not any("apt-get" in run or "pip install" in run for run in runs)


@pytest.mark.parametrize("name", FILES)
def test_versions_come_from_the_shared_constraints(name: str) -> None:
    installs = [
        part.strip()
        for word, rest in _instructions(name)
        if word == "RUN"
        for part in re.split(r"&&|\|\||[{};]", rest)
        if part.strip().startswith("pip install")
    ]
    assert installs
    for command in installs:
        assert "-c constraints.txt" in command or "--no-deps" in command, command


@pytest.mark.parametrize("name", FILES)
def test_the_legacy_builder_can_build_it(name: str) -> None:
    assert "--mount" not in (ROOT / name).read_text()
    assert "# syntax" not in (ROOT / name).read_text()
    assert "<<" not in (ROOT / name).read_text()


def test_the_gpu_image_asks_the_nvidia_runtime_for_devices_and_compute() -> None:
    settings = " ".join(rest for word, rest in _final("Dockerfile.gpu") if word == "ENV")
    assert "NVIDIA_VISIBLE_DEVICES=all" in settings
    assert "NVIDIA_DRIVER_CAPABILITIES=compute,utility" in settings


def test_the_gpu_image_takes_torch_with_cuda_and_no_driver_of_its_own() -> None:
    text = " ".join(rest for _, rest in _instructions("Dockerfile.gpu"))
    assert "+cpu" not in text
    assert "--index-url" not in text
    assert "nvidia-driver" not in text


def test_the_two_images_differ_only_in_torch_and_the_nvidia_settings() -> None:
    cpu, gpu = (set(_instructions(name)) for name in FILES)
    assert {word for word, _ in cpu ^ gpu} == {"ARG", "RUN", "ENV"}
    assert len(gpu - cpu) == 2
    assert len(cpu - gpu) == 2


def test_only_what_is_copied_reaches_the_build_context() -> None:
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = {
        source.rstrip("/")
        for name in FILES
        for word, rest in _instructions(name)
        if word == "COPY" and not rest.startswith("--from")
        for source in rest.split()[:-1]
    }
    assert all(
        any(source == entry or source.startswith(entry + "/") for entry in allowed) for source in copied
    )
    assert all(
        any(source == entry or source.startswith(entry + "/") for source in copied) for entry in allowed
    )
