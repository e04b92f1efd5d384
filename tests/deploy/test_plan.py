"""What is described and what is there → requests: only what is needed, in an order that AWS takes."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from mmekit_toolkit.deploy import alarms, definitions, private_link, requests, scaling
from mmekit_toolkit.deploy.description import Description
from mmekit_toolkit.deploy.observed import Observed
from mmekit_toolkit.deploy.plan import plan
from tests.deploy.support import (
    ARN,
    AROUND,
    DIGEST,
    MINIMAL,
    SCALED,
    arn,
    configs,
    describe,
    models,
    operations,
    parameters,
    running,
)

FULL = (
    SCALED
    + """\
    alarms: {model_latency_p99_ms: 250, errors_5xx_percent: 1, cache_hit_percent: 80, notify: ["arn:sns"]}
environment: {A: "1"}
cache: false
network_isolation: true
vpc: {subnets: [subnet-1, subnet-2], security_groups: [sg-1]}
kms_key: alias/mine
private_link:
  vpc: vpc-1
  subnets: [subnet-1]
  security_groups: [sg-1]
  route_tables: [rtb-1]
  services: [runtime, api, s3]
update: {traffic: canary, step_percent: 20, wait_s: 60}
tags: {team: risk}
"""
)
TWO = (
    MINIMAL.replace("  - instance", "  - name: A\n    instance")
    + "  - {name: B, instance_type: ml.m5.large, autoscaling: {min: 1, max: 9, memory_percent: 80}}\n"
)


def around(description: Description) -> dict[str, Any]:
    """Return all that stands around an endpoint when it is as described."""
    name = description.name
    scaled = {v.name: v.autoscaling for v in description.variants if v.autoscaling}
    return {
        "alarms": alarms.alarms(description),
        "targets": {v: scaling.register(name, v, wanted).parameters for v, wanted in scaled.items()},
        "policies": {v: scaling.put_policy(name, v, wanted).parameters for v, wanted in scaled.items()},
        "vpc_endpoints": private_link.endpoints(description, AROUND.region),
        "tags": {},
    }


def test_from_nothing_everything_is_created_in_order(tmp_path: Path) -> None:
    made = plan(describe(tmp_path, FULL), AROUND, Observed())
    assert operations(made) == [
        "CreateVpcEndpoint",
        "CreateVpcEndpoint",
        "CreateVpcEndpoint",
        "CreateModel",
        "CreateEndpointConfig",
        "PutMetricAlarm",
        "PutMetricAlarm",
        "PutMetricAlarm",
        "CreateEndpoint",
        "RegisterScalableTarget",
        "PutScalingPolicy",
    ]
    assert made.differences == []
    requests.check(made.requests)
    model = parameters(made, "CreateModel")
    assert model["PrimaryContainer"] == {
        "Image": DIGEST,
        "Mode": "MultiModel",
        "ModelDataUrl": "s3://models/churn/",
        "Environment": {"A": "1"},
        "MultiModelConfig": {"ModelCacheSetting": "Disabled"},
    }
    assert model["EnableNetworkIsolation"]
    assert model["VpcConfig"] == {"Subnets": ["subnet-1", "subnet-2"], "SecurityGroupIds": ["sg-1"]}
    config = parameters(made, "CreateEndpointConfig")
    assert config["KmsKeyId"] == "alias/mine"
    assert config["ProductionVariants"][0]["ModelName"] == model["ModelName"]
    assert parameters(made, "CreateEndpoint")["EndpointConfigName"] == config["EndpointConfigName"]
    for request in made.requests:
        if "Tags" in request.parameters:
            tags = {tag["Key"]: tag["Value"] for tag in request.parameters["Tags"]}
            assert tags["mmekit:endpoint"] == "churn"
            assert tags["team"] == "risk"


def test_where_all_is_as_described_nothing_is_done(tmp_path: Path) -> None:
    description = describe(tmp_path, FULL.replace("tags: {team: risk}\n", ""))
    made = plan(description, AROUND, running(description, **around(description)))
    assert made.steps == []
    assert made.differences == []


def test_names_follow_from_content(tmp_path: Path) -> None:
    one = definitions.define(describe(tmp_path, MINIMAL), AROUND)
    same = definitions.define(describe(tmp_path, "tags: {a: b}\n" + MINIMAL), AROUND)
    other = definitions.define(describe(tmp_path, MINIMAL + "environment: {A: x}\n"), AROUND)
    assert set(one.models) == set(same.models)
    assert one.config_name == same.config_name
    assert not set(one.models) & set(other.models)
    assert one.config_name != other.config_name
    for name in (*one.models, one.config_name):
        assert name.startswith("churn-")
        assert len(name) == len("churn-") + 8


def test_a_name_of_54_characters_makes_names_that_sagemaker_takes(tmp_path: Path) -> None:
    text = FULL.replace("name: churn\n", f"name: {'n' * 54}\n")
    requests.check(plan(describe(tmp_path, text), AROUND, Observed()).requests)


def test_variants_with_equal_containers_share_a_model(tmp_path: Path) -> None:
    made = plan(describe(tmp_path, TWO), AROUND, Observed())
    assert operations(made).count("CreateModel") == 1
    own = TWO.replace("name: B, ", 'name: B, environment: {X: "1"}, models: s3://models/b/, ')
    made = plan(describe(tmp_path, own), AROUND, Observed())
    assert operations(made).count("CreateModel") == 2
    requests.check(made.requests)


@pytest.mark.parametrize("left", ["models", "configs", "alarms", "vpc_endpoints"])
def test_what_an_earlier_run_left_is_used(left: str, tmp_path: Path) -> None:
    description = describe(tmp_path, FULL)
    wanted = definitions.define(description, AROUND)
    there = {"models": models(wanted), "configs": configs(wanted), **around(description)}
    before = operations(plan(description, AROUND, Observed()))
    after = operations(plan(description, AROUND, Observed(**{left: there[left]})))
    created = {
        "models": "CreateModel",
        "configs": "CreateEndpointConfig",
        "alarms": "PutMetricAlarm",
        "vpc_endpoints": "CreateVpcEndpoint",
    }[left]
    assert [operation for operation in before if operation != created] == [
        operation for operation in after if operation != "AddTags"
    ]


def test_what_an_endpoint_in_service_lacks_is_created_without_a_difference(tmp_path: Path) -> None:
    description = describe(tmp_path, FULL.replace("tags: {team: risk}\n", ""))
    made = plan(description, AROUND, running(description))
    assert made.differences == []
    assert operations(made) == [
        *["CreateVpcEndpoint"] * 3,
        *["PutMetricAlarm"] * 3,
        "RegisterScalableTarget",
        "PutScalingPolicy",
    ]


def test_leftovers_that_differ_stop_no_new_endpoint(tmp_path: Path) -> None:
    before = describe(tmp_path, FULL)
    after = describe(tmp_path, FULL.replace("model_latency_p99_ms: 250", "model_latency_p99_ms: 300"))
    made = plan(after, AROUND, Observed(alarms=alarms.alarms(before)))
    assert made.differences == []
    assert parameters(made, "PutMetricAlarm")["Threshold"] == 300_000


def test_a_failed_endpoint_is_replaced(tmp_path: Path) -> None:
    description = describe(tmp_path, MINIMAL)
    made = plan(description, AROUND, running(description, status="Failed"))
    assert operations(made) == ["DeleteEndpoint", "CreateEndpoint"]
    assert [step.why for step in made.steps][1] == "wait until churn is gone"
    assert made.differences == []


def test_an_endpoint_that_is_being_deleted_is_made_anew_when_it_is_gone(tmp_path: Path) -> None:
    description = describe(tmp_path, MINIMAL)
    made = plan(description, AROUND, running(description, status="Deleting"))
    assert [step.why for step in made.steps][:2] == ["wait until churn is gone", "create the endpoint churn"]


def test_another_container_is_a_new_model_a_new_configuration_and_an_update(tmp_path: Path) -> None:
    before = describe(tmp_path, FULL)
    after = describe(tmp_path, FULL.replace('A: "1"', 'A: "2"'))
    made = plan(after, AROUND, running(before, **around(before)))
    assert made.differences[0] == "variant AllTraffic: environment.A: 1 → 2"
    assert operations(made)[:3] == ["CreateModel", "CreateEndpointConfig", "UpdateEndpoint"]
    update = parameters(made, "UpdateEndpoint")
    assert update["RetainAllVariantProperties"]
    assert "ExcludeRetainedVariantProperties" not in update
    assert update["DeploymentConfig"] == {
        "BlueGreenUpdatePolicy": {
            "TrafficRoutingConfiguration": {
                "Type": "CANARY",
                "WaitIntervalInSeconds": 60,
                "CanarySize": {"Type": "CAPACITY_PERCENT", "Value": 20},
            },
            "TerminationWaitInSeconds": 0,
            "MaximumExecutionTimeoutInSeconds": 14400,
        },
        "AutoRollbackConfiguration": {
            "Alarms": [
                {"AlarmName": "churn-AllTraffic-model-latency-p99"},
                {"AlarmName": "churn-AllTraffic-5xx-errors"},
            ]
        },
    }
    requests.check(made.requests)


CHANGES = {
    "image: ": (MINIMAL, MINIMAL.replace("churn:1.0", "churn:2.0")),
    "models: s3://models/churn/ → s3://models/eu/": (MINIMAL, MINIMAL.replace("models/churn", "models/eu")),
    "cache: Enabled → Disabled": (MINIMAL, MINIMAL + "cache: false\n"),
    "network_isolation: false → true": (MINIMAL, MINIMAL + "network_isolation: true\n"),
    "vpc.subnets: nothing → subnet-1": (
        MINIMAL,
        MINIMAL + "vpc: {subnets: [subnet-1], security_groups: [sg-1]}\n",
    ),
    "kms_key: nothing → alias/mine": (MINIMAL, MINIMAL + "kms_key: alias/mine\n"),
    "instance_type: ml.m5.xlarge → ml.r5.large": (MINIMAL, MINIMAL.replace("m5.xlarge", "r5.large")),
    "volume_gb: nothing → 64": (MINIMAL, MINIMAL + "    volume_gb: 64\n"),
    "startup_timeout_s: nothing → 120": (MINIMAL, MINIMAL + "    startup_timeout_s: 120\n"),
    "variant B: to be added": (MINIMAL, MINIMAL + "  - {name: B, instance_type: ml.m5.large}\n"),
    "variant B: to be removed": (MINIMAL + "  - {name: B, instance_type: ml.m5.large}\n", MINIMAL),
}


@pytest.mark.parametrize("said", CHANGES)
def test_a_change_of_fleets_is_told_in_the_words_of_the_file(said: str, tmp_path: Path) -> None:
    one, other = (describe(tmp_path, text) for text in CHANGES[said])
    images = {description.image: description.image for description in (one, other)}
    surroundings = dataclasses.replace(AROUND, images=images)
    made = plan(other, surroundings, running(one, around=surroundings))
    assert len(made.differences) in (1, 2)
    assert said in "\n".join(made.differences)
    assert operations(made)[-1] == "UpdateEndpoint"
    back = plan(one, surroundings, running(other, around=surroundings))
    assert operations(back)[-1] == "UpdateEndpoint"


def test_a_tag_that_has_moved_to_another_digest_is_a_change(tmp_path: Path) -> None:
    description = describe(tmp_path, MINIMAL)
    moved = dataclasses.replace(AROUND, images={description.image: "repository@sha256:" + "cd" * 32})
    made = plan(description, moved, running(description))
    assert made.differences == [f"variant AllTraffic: image: {DIGEST} → repository@sha256:{'cd' * 32}"]


def test_counts_and_weights_change_in_place(tmp_path: Path) -> None:
    before = describe(tmp_path, TWO)
    after = describe(tmp_path, TWO.replace("  - name: A\n", "  - name: A\n    instances: 3\n    weight: 5\n"))
    made = plan(after, AROUND, running(before, **around(before)))
    assert operations(made) == ["UpdateEndpointWeightsAndCapacities"]
    assert parameters(made, "UpdateEndpointWeightsAndCapacities")["DesiredWeightsAndCapacities"] == [
        {"VariantName": "A", "DesiredInstanceCount": 3, "DesiredWeight": 5.0}
    ]
    assert made.differences == ["variant A: instances: 1 → 3", "variant A: weight: 1 → 5"]
    # And then all is as described, although the configuration is of another name.
    scaled = running(before, counts={"A": 3}, weights={"A": 5.0}, **around(before))
    assert plan(after, AROUND, scaled).steps == []


def test_the_number_of_instances_that_autoscaling_has_chosen_stays(tmp_path: Path) -> None:
    before = describe(tmp_path, SCALED)
    there = running(before, counts={"AllTraffic": 4}, **around(before))
    assert plan(before, AROUND, there).steps == []
    made = plan(describe(tmp_path, SCALED + "environment: {A: x}\n"), AROUND, there)
    assert parameters(made, "UpdateEndpoint")["RetainAllVariantProperties"]
    assert "ExcludeRetainedVariantProperties" not in parameters(made, "UpdateEndpoint")


def test_a_fixed_count_that_changes_with_the_fleet_takes_no_count_from_autoscaling(tmp_path: Path) -> None:
    before = describe(tmp_path, TWO)
    changed = TWO.replace("  - name: A\n", "  - name: A\n    instances: 3\n") + "environment: {A: x}\n"
    there = running(before, counts={"A": 1, "B": 7}, **around(before))
    made = plan(describe(tmp_path, changed), AROUND, there)
    assert parameters(made, "UpdateEndpoint")["ExcludeRetainedVariantProperties"] == [
        {"VariantPropertyType": "DesiredInstanceCount"}
    ]
    config = parameters(made, "CreateEndpointConfig")
    counts = {v["VariantName"]: v["InitialInstanceCount"] for v in config["ProductionVariants"]}
    assert counts == {"A": 3, "B": 7}


def test_autoscaling_ends_before_the_instance_type_changes_and_begins_again_after(tmp_path: Path) -> None:
    before = describe(tmp_path, SCALED)
    after = describe(tmp_path, SCALED.replace("m5.xlarge", "r5.large"))
    made = plan(after, AROUND, running(before, **around(before)))
    assert operations(made) == [
        "CreateEndpointConfig",
        "DeregisterScalableTarget",
        "UpdateEndpoint",
        "RegisterScalableTarget",
        "PutScalingPolicy",
    ]


def test_autoscaling_that_is_not_in_the_file_any_more_ends(tmp_path: Path) -> None:
    before, after = describe(tmp_path, SCALED), describe(tmp_path, MINIMAL)
    made = plan(after, AROUND, running(before, counts={"AllTraffic": 2}, **around(before)))
    assert operations(made) == ["DeregisterScalableTarget", "UpdateEndpointWeightsAndCapacities"]
    assert made.differences == [
        "variant AllTraffic: autoscaling: not in the file",
        "variant AllTraffic: instances: 2 → 1",
    ]


def test_a_scalable_target_without_our_policy_is_left_alone(tmp_path: Path) -> None:
    description = describe(tmp_path, MINIMAL)
    foreign = {"AllTraffic": {"MinCapacity": 1, "MaxCapacity": 3}}
    assert plan(description, AROUND, running(description, targets=foreign)).steps == []


@pytest.mark.parametrize(
    ("change", "operation"),
    [("max: 4", "RegisterScalableTarget"), ("600", "PutScalingPolicy")],
    ids=["limits", "target"],
)
def test_a_change_of_autoscaling_changes_only_that(change: str, operation: str, tmp_path: Path) -> None:
    before, after = describe(tmp_path, SCALED), describe(tmp_path, SCALED.replace(change, change + "0"))
    made = plan(after, AROUND, running(before, **around(before)))
    assert operations(made) == [operation]
    assert made.differences == ["variant AllTraffic: autoscaling"]


@pytest.mark.parametrize(
    ("target", "metric"),
    [
        ("invocations_per_instance: 600", "SageMakerVariantInvocationsPerInstance"),
        (
            "concurrent_requests_per_model: 600",
            "SageMakerVariantConcurrentRequestsPerModelHighResolution",
        ),
        ("memory_percent: 80", "MemoryUtilization"),
    ],
)
def test_each_target_of_autoscaling_is_a_metric_that_aws_has(
    target: str, metric: str, tmp_path: Path
) -> None:
    text = SCALED.replace("invocations_per_instance: 600", f"{target}, scale_in: false")
    made = plan(describe(tmp_path, text), AROUND, Observed())
    requests.check(made.requests)
    tracking = parameters(made, "PutScalingPolicy")["TargetTrackingScalingPolicyConfiguration"]
    assert metric in str(tracking)
    assert tracking["DisableScaleIn"]
    assert (tracking["ScaleOutCooldown"], tracking["ScaleInCooldown"]) == (300, 300)


def test_an_update_that_changes_which_variants_there_are_has_no_guardrails(tmp_path: Path) -> None:
    # "Deployment guardrails: Exclusions": the new configuration must have the old one's variant names.
    before = describe(tmp_path, FULL)
    after = describe(tmp_path, FULL.replace("  - instance_type", "  - name: B\n    instance_type"))
    made = plan(after, AROUND, running(before, **around(before)))
    assert "DeploymentConfig" not in parameters(made, "UpdateEndpoint")
    (why,) = [request.why for request in made.requests if request.operation == "UpdateEndpoint"]
    assert why.startswith("update the endpoint churn, all at once and without its alarms")


@pytest.mark.parametrize(
    ("region", "interface", "gateway"),
    [
        ("us-gov-west-1", "com.amazonaws.us-gov-west-1.sagemaker.runtime", "com.amazonaws.us-gov-west-1.s3"),
        ("cn-north-1", "cn.com.amazonaws.cn-north-1.sagemaker.runtime", "com.amazonaws.cn-north-1.s3"),
        ("us-iso-east-1", "gov.ic.c2s.us-iso-east-1.sagemaker.runtime", "com.amazonaws.us-iso-east-1.s3"),
    ],
)
def test_vpc_endpoints_have_the_names_of_the_partition(
    region: str, interface: str, gateway: str, tmp_path: Path
) -> None:
    description = describe(tmp_path, FULL.replace("[runtime, api, s3]", "[runtime, s3]"))
    assert list(private_link.endpoints(description, region)) == [interface, gateway]


def test_alarms_that_are_not_in_the_file_any_more_are_deleted_last(tmp_path: Path) -> None:
    before, after = describe(tmp_path, FULL), describe(tmp_path, FULL.replace("cache_hit_percent: 80, ", ""))
    made = plan(after, AROUND, running(before, **{**around(before), "tags": {}}))
    assert operations(made)[0] == "DeleteAlarms"
    assert parameters(made, "DeleteAlarms") == {"AlarmNames": ["churn-AllTraffic-cache-hit"]}
    assert made.differences[0] == "the alarm churn-AllTraffic-cache-hit: not in the file"


def test_the_alarm_on_cache_hits_rolls_no_update_back(tmp_path: Path) -> None:
    description = describe(tmp_path, FULL)
    assert "churn-AllTraffic-cache-hit" in alarms.alarms(description)
    assert "churn-AllTraffic-cache-hit" not in alarms.rollback_alarms(description)


def test_alarms_have_the_units_of_the_metrics(tmp_path: Path) -> None:
    text = MINIMAL + (
        "    alarms: {model_latency_p99_ms: 250, errors_5xx_percent: 1, errors_4xx_percent: 5, "
        "cache_hit_percent: 80, memory_percent: 90, disk_percent: 85, minutes: 3}\n"
    )
    found = alarms.alarms(describe(tmp_path, text))
    assert {
        name.removeprefix("churn-AllTraffic-"): (alarm["Threshold"], alarm["ComparisonOperator"])
        for name, alarm in found.items()
    } == {
        "model-latency-p99": (250_000, "GreaterThanThreshold"),  # microseconds
        "5xx-errors": (0.01, "GreaterThanThreshold"),  # the average of 0 or 1 a call
        "4xx-errors": (0.05, "GreaterThanThreshold"),
        "cache-hit": (80.0, "LessThanThreshold"),  # an expression, in percent
        "memory": (90.0, "GreaterThanThreshold"),
        "disk": (85.0, "GreaterThanThreshold"),
    }
    assert {alarm["EvaluationPeriods"] for alarm in found.values()} == {3}
    assert {alarm["TreatMissingData"] for alarm in found.values()} == {"notBreaching"}
    requests.check([alarms.put(alarm) for alarm in found.values()])


def test_tags_of_the_file_are_added_to_what_is_in_use(tmp_path: Path) -> None:
    description = describe(tmp_path, MINIMAL + "tags: {team: risk, owner: me}\n")
    wanted = definitions.define(description, AROUND)
    tags = {ARN: {"team": "risk", "owner": "me"}, arn(wanted.config_name): {"team": "other"}}
    tags |= {arn(name): {"team": "risk", "owner": "me", "more": "x"} for name in wanted.models}
    made = plan(description, AROUND, running(description, tags=tags))
    assert parameters(made, "AddTags") == {
        "ResourceArn": arn(wanted.config_name),
        "Tags": [{"Key": "team", "Value": "risk"}, {"Key": "owner", "Value": "me"}],
    }


def test_what_was_deleted_under_an_endpoint_is_created_again_and_nothing_updated(tmp_path: Path) -> None:
    description = describe(tmp_path, MINIMAL)
    made = plan(description, AROUND, running(description, configs={}, models={}))
    assert operations(made) == ["CreateModel", "CreateEndpointConfig"]
    assert made.differences == []


def test_a_configuration_that_was_deleted_under_its_endpoint_comes_with_the_next_update(
    tmp_path: Path,
) -> None:
    before, after = describe(tmp_path, MINIMAL), describe(tmp_path, MINIMAL + "environment: {A: x}\n")
    made = plan(after, AROUND, running(before, configs={}, models={}))
    assert operations(made) == ["CreateModel", "CreateEndpointConfig", "UpdateEndpoint"]
    assert made.differences == ["the configuration that the endpoint runs was deleted"]


def test_a_local_endpoint_is_asked_for_nothing_that_it_has_not(tmp_path: Path) -> None:
    local = dataclasses.replace(AROUND, local=True)
    before = describe(tmp_path, FULL)
    assert not {"CreateVpcEndpoint", "RegisterScalableTarget", "PutScalingPolicy"} & set(
        operations(plan(before, local, Observed()))
    )
    made = plan(before, local, running(describe(tmp_path, MINIMAL)))
    assert "DeploymentConfig" not in parameters(made, "UpdateEndpoint")


def test_a_vpc_endpoint_that_somebody_made_is_used(tmp_path: Path) -> None:
    description = describe(tmp_path, FULL)
    there = {"com.amazonaws.eu-west-1.sagemaker.runtime": {"VpcEndpointId": "vpce-1"}}
    made = plan(description, AROUND, Observed(vpc_endpoints=there))
    created = [r.parameters for r in made.requests if r.operation == "CreateVpcEndpoint"]
    assert [(c["ServiceName"], c["VpcEndpointType"]) for c in created] == [
        ("com.amazonaws.eu-west-1.sagemaker.api", "Interface"),
        ("com.amazonaws.eu-west-1.s3", "Gateway"),
    ]
