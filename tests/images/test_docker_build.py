from __future__ import annotations

import pytest

from mmekit_toolkit.errors import NoEngine
from mmekit_toolkit.images.build_command import foreign
from mmekit_toolkit.images.docker_build import Builder, Order, buildx_version, command_line, find_builder

ORDER = Order(context=".", tag="churn:1.0", platform="linux/amd64")


def test_buildx_is_told_to_write_what_sagemaker_takes() -> None:
    assert command_line(ORDER, Builder((0, 20))) == [
        *("docker", "buildx", "build", "--provenance=false", "--sbom=false"),
        *("--output", "type=docker,oci-mediatypes=false"),
        *("--tag", "churn:1.0", "--platform", "linux/amd64", "."),
    ]


def test_a_buildx_that_attaches_nothing_has_no_options_against_it() -> None:
    words = command_line(ORDER, Builder((0, 9)))
    assert words[:5] == ["docker", "buildx", "build", "--output", "type=docker,oci-mediatypes=false"]


def test_the_legacy_builder_gets_none_of_buildxs_options() -> None:
    assert command_line(ORDER, Builder()) == [
        *("docker", "build", "--force-rm", "--tag", "churn:1.0", "--platform", "linux/amd64", "."),
    ]


def test_every_option_reaches_docker_and_the_context_is_last() -> None:
    order = Order(
        context="dir with space",
        tag="churn:1.0",
        platform="linux/arm64",
        file="docker/File",
        build_args=("A=1", "B=x y"),
        target="final",
        pull=True,
        no_cache=True,
        more=("--network", "host"),
    )
    assert command_line(order, Builder()) == [
        *("docker", "build", "--force-rm", "--tag", "churn:1.0", "--platform", "linux/arm64"),
        *("--file", "docker/File"),
        *("--build-arg", "A=1", "--build-arg", "B=x y", "--target", "final", "--pull", "--no-cache"),
        *("--network", "host", "dir with space"),
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("github.com/docker/buildx v0.20.1 245093b99a18ef9af2c22eab7bc9ba2dc0f3ccb0\n", (0, 20)),
        ("github.com/docker/buildx v0.12.1-desktop.1 abc\n", (0, 12)),
        ("github.com/docker/buildx 0.13.1 0.13.1-0ubuntu1\n", (0, 13)),
        ("github.com/docker/buildx v1.2.0 abc\n", (1, 2)),
        ("github.com/docker/buildx (devel) abc\n", (0, 10)),
        ("buildah 1.33.7\n", None),
        ("podman version 5.2.1", None),
        ("", None),
    ],
)
def test_buildx_is_known_by_its_version(text: str, expected: tuple[int, int] | None) -> None:
    assert buildx_version(text) == expected


def test_docker_buildkit_0_asks_for_the_legacy_builder(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("bin")
    program = folder / "docker"
    program.write_text("#!/bin/sh\necho github.com/docker/buildx v0.20.1 abc\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))
    assert find_builder({}) == Builder((0, 20))
    assert find_builder({"DOCKER_BUILDKIT": "1"}) == Builder((0, 20))
    assert find_builder({"DOCKER_BUILDKIT": "0"}) == Builder()
    program.write_text("#!/bin/sh\necho docker: 'buildx' is not a docker command. >&2\nexit 1\n")
    assert find_builder({}) == Builder()
    program.unlink()
    with pytest.raises(NoEngine, match="`docker` was not found"):
        find_builder({})


def test_building_for_another_architecture_is_said() -> None:
    assert foreign("linux/amd64", "amd64") is None
    assert foreign("linux/arm64", "arm64") is None
    assert "linux/amd64 on an engine with arm64" in (foreign("linux/amd64", "arm64") or "")
    assert "linux/arm64 on an engine with amd64" in (foreign("linux/arm64", "amd64") or "")
