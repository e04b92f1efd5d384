"""Which instance takes a call: the one that has the model; more of them while it is hot."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.endpoint.service import Service, stub_model
from tests.support.server import until


def test_a_model_stays_on_one_instance_and_models_spread_over_all(tmp_path: Path) -> None:
    with Service(tmp_path / "state") as service:
        names = [f"m{number}" for number in range(12)]
        service.upload(**{name: stub_model(name) for name in names})
        service.create("sticky", count=3)
        first = {name: service.invoke("sticky", f"{name}.tar.gz")["pid"] for name in names}
        for _ in range(3):
            assert {name: service.invoke("sticky", f"{name}.tar.gz")["pid"] for name in names} == first
        loaded = service.loaded("sticky")
        assert sorted(target for models in loaded for target in models) == sorted(
            f"{name}.tar.gz" for name in names
        ), "each model once"
        assert max(len(models) for models in loaded) <= 5, loaded
        assert min(len(models) for models in loaded) >= 2, loaded


def test_a_hot_model_gets_a_copy_which_goes_again_when_nobody_calls(tmp_path: Path) -> None:
    with (
        Service(tmp_path / "state", "--hot", "4", "--copy-idle", "1") as service,
        ThreadPoolExecutor(24) as threads,
    ):
        gate = tmp_path / "gate"
        gate.touch()
        service.upload(hot=stub_model("h", invoke_until=str(gate)), other=stub_model("o"))
        service.create("hot", count=2)
        service.invoke("hot", "hot.tar.gz")
        assert sorted(service.loaded("hot")) == [[], ["hot.tar.gz"]]
        gate.unlink()
        calls = [threads.submit(service.invoke, "hot", "hot.tar.gz") for _ in range(8)]

        def both_serve() -> bool:
            if service.loaded("hot") == [["hot.tar.gz"]] * 2:
                calls.append(threads.submit(service.invoke, "hot", "hot.tar.gz"))
            return all(instance["in_flight"] for instance in service.instances("hot"))

        until(both_serve, what="calls with both instances")
        gate.touch()
        assert len({call.result()["pid"] for call in calls}) == 2, "both instances served it"
        assert {event["model"] for event in service.events("model_spread")} == {"hot.tar.gz"}
        until(lambda: sorted(service.loaded("hot")) == [[], ["hot.tar.gz"]], what="one copy again")
        # Once each, unless nobody called for a second while the machine stood still.
        until(
            lambda: len(service.events("unloaded")) == len(service.events("model_spread")),
            what="an unload for each copy",
        )
        assert len(service.events("downloaded")) == 2
        assert service.invoke("hot", "hot.tar.gz")["value"] == "h"


def test_a_model_without_load_stays_alone(tmp_path: Path) -> None:
    with Service(tmp_path / "state") as service:
        service.upload(calm=stub_model("c"))
        service.create("calm", count=2)
        for _ in range(50):
            service.invoke("calm", "calm.tar.gz")
        assert sorted(service.loaded("calm")) == [[], ["calm.tar.gz"]]
        assert not service.events("model_spread")


def test_no_more_calls_are_with_a_copy_than_allowed_and_none_is_lost(tmp_path: Path) -> None:
    with Service(tmp_path / "state", "--max-in-flight", "2") as service, ThreadPoolExecutor(16) as threads:
        gate = tmp_path / "gate"
        service.upload(m=stub_model("m", invoke_s="0.02", invoke_until=str(gate)))
        service.create("few")
        calls = [threads.submit(service.invoke, "few", "m.tar.gz") for _ in range(16)]

        def shown() -> tuple[int, int]:
            (instance,) = service.instances("few")
            return instance["in_flight"], sum(model["waiting"] for model in instance["models"])

        until(lambda: shown() == (2, 14), what="two calls in flight, the others waiting")
        gate.touch()
        most = 2
        while not all(call.done() for call in calls):
            most = max(most, service.instances("few")[0]["in_flight"])
        assert [call.result()["value"] for call in calls] == ["m"] * 16
        assert most == 2


def test_a_triton_like_container_gets_names_and_headers_as_it_wants_them(tmp_path: Path) -> None:
    """triton-inference-server/server: src/sagemaker_server.cc."""
    with Service(tmp_path / "state", program="triton_like.py") as service:
        service.upload(**{"a-model": stub_model("a"), "b": stub_model("b"), "c": stub_model("c")})
        service.create("triton", environment={"STUB_CAPACITY": "2"})
        for name in ("a-model", "b", "c", "a-model", "c"):
            assert service.invoke("triton", f"{name}.tar.gz")["value"] == name[0]
        assert [event["model"] for event in service.events("unloaded")] == ["a-model.tar.gz", "b.tar.gz"]


def test_target_models_in_folders_and_with_odd_names(tmp_path: Path) -> None:
    with Service(tmp_path / "state") as service:
        service.s3.create_bucket(Bucket="models")
        names = ["City/Paris.tar.gz", "with space.tar.gz", "plus+and%25.tar.gz", "no-suffix", "a/b/c/d.tgz"]
        for name in names:
            service.s3.put_object(Bucket="models", Key=f"m/{name}", Body=stub_model(name))
        service.create("names", url="s3://models/m")
        for name in names:
            assert service.invoke("names", name)["value"] == name
