"""``mmekit iam``: policies that IAM takes, that allow what is needed, and nothing of others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.endpoint.service import Service
from tests.toolkit.commands import Mmekit, described, local
from tests.toolkit.iam_evaluation import Demand, allows
from tests.toolkit.moto_server import MotoServer

ROLE = "arn:aws:iam::123456789012:role/churn"
KEY = "arn:aws:kms:us-east-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab"
GROUP = "arn:aws:logs:us-east-1:123456789012:log-group:/aws/sagemaker/Endpoints/"
EVERYTHING: dict[str, Any] = {
    "region": "us-east-1",
    "kms_key": KEY,
    "vpc": {"subnets": ["subnet-1", "subnet-2"], "security_groups": ["sg-1"]},
    "private_link": {
        "vpc": "vpc-1",
        "subnets": ["subnet-1", "subnet-2"],
        "security_groups": ["sg-2"],
        "services": ["runtime", "api", "s3"],
        "route_tables": ["rtb-1"],
    },
    "variants": [
        {
            "instance_type": "ml.m5.large",
            "instances": 2,
            "autoscaling": {"min": 2, "max": 4, "invocations_per_instance": 100},
        }
    ],
}


@pytest.fixture(scope="module")
def offline() -> Mmekit:
    """The command where no AWS answers and nobody has signed in: a file alone must do."""
    nobody = Mmekit(AWS_ENDPOINT_URL="http://127.0.0.1:9")
    return nobody.also(AWS_ACCESS_KEY_ID="", AWS_SECRET_ACCESS_KEY="", AWS_REGION="")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return described(tmp_path_factory.mktemp("small"), "churn", "s3://models/churn/", region="us-east-1")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return described(tmp_path_factory.mktemp("whole"), "Churn", "s3://models/churn/", **EVERYTHING)


@pytest.fixture(scope="module")
def of_role(offline: Mmekit, small: Path) -> Any:
    return policy(offline, "execution-role", small)


@pytest.fixture(scope="module")
def of_deployer(offline: Mmekit, small: Path) -> Any:
    return policy(offline, "deployer", small)


def policy(mmekit: Mmekit, *arguments: object) -> Any:
    return json.loads(mmekit("iam", *arguments).stdout)


def actions(document: Any) -> set[str]:
    return {action for statement in document["Statement"] for action in statement["Action"]}


@pytest.mark.parametrize("kind", ["execution-role", "deployer", "caller"])
def test_iam_takes_the_policies_and_they_fit_into_a_managed_one(
    offline: Mmekit, whole: Path, moto: MotoServer, kind: str
) -> None:
    document = policy(offline, kind, whole)
    text = json.dumps(document, separators=(",", ":"))
    assert len(text) <= 6144
    client = moto.client("iam")
    client.create_policy(PolicyName=f"churn-{kind}", PolicyDocument=text)
    client.close()


def test_iam_takes_the_trust_policy_which_is_for_this_account_only(
    offline: Mmekit, small: Path, moto: MotoServer
) -> None:
    document = policy(offline, "execution-role", small, "--trust")
    (statement,) = document["Statement"]
    assert statement["Principal"] == {"Service": "sagemaker.amazonaws.com"}
    assert statement["Condition"] == {"StringEquals": {"aws:SourceAccount": "123456789012"}}
    client = moto.client("iam")
    client.create_role(RoleName="churn", AssumeRolePolicyDocument=json.dumps(document))
    client.close()


@pytest.mark.parametrize(
    ("demand", "is_allowed"),
    [
        (Demand("s3:GetObject", "arn:aws:s3:::models/churn/a.tar.gz"), True),
        (Demand("s3:GetObject", "arn:aws:s3:::models/other/a.tar.gz"), False),
        (Demand("s3:PutObject", "arn:aws:s3:::models/churn/a.tar.gz"), False),
        (Demand("s3:ListBucket", "arn:aws:s3:::models", {"s3:prefix": "churn/a"}), True),
        (Demand("s3:ListBucket", "arn:aws:s3:::models", {"s3:prefix": ""}), False),
        (Demand("s3:ListBucket", "arn:aws:s3:::models"), False),
        (Demand("ecr:GetAuthorizationToken"), True),
        (Demand("ecr:BatchGetImage", "arn:aws:ecr:us-east-1:123456789012:repository/churn"), True),
        (Demand("ecr:BatchGetImage", "arn:aws:ecr:us-east-1:123456789012:repository/other"), False),
        (Demand("ecr:PutImage", "arn:aws:ecr:us-east-1:123456789012:repository/churn"), False),
        (
            Demand(
                "logs:PutLogEvents",
                f"{GROUP}churn:log-stream:AllTraffic/i-1",
            ),
            True,
        ),
        (
            Demand(
                "logs:PutLogEvents",
                f"{GROUP}churn2:log-stream:AllTraffic/i-1",
            ),
            False,
        ),
        (Demand("cloudwatch:PutMetricData", "*", {"cloudwatch:namespace": "AWS/SageMaker"}), True),
        (Demand("cloudwatch:PutMetricData", "*", {"cloudwatch:namespace": "AWS/Billing"}), False),
        (Demand("ec2:DescribeSubnets"), False),
        (Demand("kms:CreateGrant", KEY, {"kms:GrantIsForAWSResource": "true"}), False),
    ],
)
def test_an_execution_role_reaches_its_own_prefix_repository_and_logs(
    of_role: Any, demand: Demand, is_allowed: bool
) -> None:
    assert allows(of_role, demand) == is_allowed


def test_a_role_in_a_vpc_with_a_key_may_use_these_and_no_others(offline: Mmekit, whole: Path) -> None:
    document = policy(offline, "execution-role", whole)
    ec2 = "arn:aws:ec2:us-east-1:123456789012"
    assert allows(document, Demand("ec2:CreateNetworkInterface", f"{ec2}:subnet/subnet-2"))
    assert allows(document, Demand("ec2:CreateNetworkInterface", f"{ec2}:network-interface/eni-1"))
    assert not allows(document, Demand("ec2:CreateNetworkInterface", f"{ec2}:subnet/subnet-3"))
    assert allows(document, Demand("kms:CreateGrant", KEY, {"kms:GrantIsForAWSResource": "true"}))
    assert not allows(document, Demand("kms:CreateGrant", KEY))
    assert not allows(document, Demand("kms:DescribeKey", KEY[:-1] + "c"))


def test_a_key_may_be_named_by_its_alias(offline: Mmekit, tmp_path: Path) -> None:
    file = described(tmp_path, "churn", "s3://models/churn/", region="us-east-1", kms_key="alias/volumes")
    document = policy(offline, "execution-role", file)
    assert allows(document, Demand("kms:DescribeKey", KEY, {"kms:ResourceAliases": "alias/volumes"}))
    assert not allows(document, Demand("kms:DescribeKey", KEY, {"kms:ResourceAliases": "alias/other"}))


def test_a_deployer_has_autoscaling_and_private_link_only_where_the_file_has_them(
    offline: Mmekit, small: Path, whole: Path
) -> None:
    of_small, of_whole = (
        actions(policy(offline, "deployer", small)),
        actions(policy(offline, "deployer", whole)),
    )
    extra = {
        "application-autoscaling:RegisterScalableTarget",
        "ec2:CreateVpcEndpoint",
        "iam:CreateServiceLinkedRole",
        "kms:CreateGrant",
    }
    assert not extra & of_small
    assert extra <= of_whole


@pytest.mark.parametrize(
    "demand",
    [
        Demand("sagemaker:DeleteEndpoint", "arn:aws:sagemaker:us-east-1:123456789012:endpoint/churn2"),
        Demand("sagemaker:DeleteModel", "arn:aws:sagemaker:us-east-1:123456789012:model/other-1a2b3c4d"),
        Demand("sagemaker:InvokeEndpoint", "arn:aws:sagemaker:us-east-1:123456789012:endpoint/churn"),
        Demand("iam:PassRole", ROLE, {"iam:PassedToService": "ec2.amazonaws.com"}),
        Demand("iam:PassRole", ROLE + "2", {"iam:PassedToService": "sagemaker.amazonaws.com"}),
        Demand("s3:DeleteObject", "arn:aws:s3:::models/churned/a.tar.gz"),
        Demand("s3:DeleteBucket", "arn:aws:s3:::models"),
        Demand("cloudwatch:DeleteAlarms", "arn:aws:cloudwatch:us-east-1:123456789012:alarm:other-5xx"),
        Demand("ecr:DeleteRepository", "arn:aws:ecr:us-east-1:123456789012:repository/churn"),
        Demand(
            "logs:DeleteLogGroup",
            "arn:aws:logs:us-east-1:123456789012:log-group:/aws/sagemaker/Endpoints/churn",
        ),
    ],
)
def test_a_deployer_may_touch_nothing_of_others(of_deployer: Any, demand: Demand) -> None:
    assert not allows(of_deployer, demand)


def test_a_name_with_capitals_has_both_of_its_arns(offline: Mmekit, whole: Path) -> None:
    (statement,) = policy(offline, "caller", whole)["Statement"]
    arn = "arn:aws:sagemaker:us-east-1:123456789012:endpoint/"
    assert statement["Resource"] == [arn + "Churn", arn + "churn"]


def test_a_tenant_reaches_the_models_of_its_own_folder(offline: Mmekit, small: Path) -> None:
    document = policy(offline, "caller", small, "--tenant", "tenant_a/")
    arn = "arn:aws:sagemaker:us-east-1:123456789012:endpoint/churn"

    def may(target: str) -> bool:
        return allows(document, Demand("sagemaker:InvokeEndpoint", arn, {"sagemaker:TargetModel": target}))

    assert may("tenant_a/churn-1f3870be274f.tar.gz")
    assert not may("tenant_ab/churn.tar.gz")
    assert not may("tenant_b/churn.tar.gz")
    assert not may("churn.tar.gz")


def test_several_tenants_have_a_policy_each(offline: Mmekit, small: Path) -> None:
    found = policy(offline, "caller", small, "--tenant", "a", "--tenant", "b")
    assert found.keys() == {"a", "b"}
    assert found["b"] == policy(offline, "caller", small, "--tenant", "b")


@pytest.mark.parametrize("tenant", ["*", "a?", "${aws:username}"])
def test_a_tenant_that_would_match_others_is_refused(offline: Mmekit, small: Path, tenant: str) -> None:
    done = offline("iam", "caller", small, "--tenant", tenant, code=1)
    assert "would match others, too" in done.stderr


@pytest.mark.parametrize(
    ("partition", "region", "domain"),
    [("aws-cn", "cn-north-1", "amazonaws.com.cn"), ("aws-us-gov", "us-gov-west-1", "amazonaws.com")],
)
def test_china_and_govcloud_have_partitions_of_their_own(
    offline: Mmekit, tmp_path: Path, partition: str, region: str, domain: str
) -> None:
    key = KEY.replace("arn:aws:", f"arn:{partition}:").replace("us-east-1", region)
    file = described(
        tmp_path,
        "churn",
        "s3://models/churn/",
        **{**EVERYTHING, "region": region, "kms_key": key},
        role=f"arn:{partition}:iam::123456789012:role/churn",
        image=f"123456789012.dkr.ecr.{region}.{domain}/churn:1.0",
    )
    text = json.dumps([policy(offline, kind, file) for kind in ("execution-role", "deployer", "caller")])
    assert "arn:aws:" not in text
    assert "us-east-1" not in text
    assert f"arn:{partition}:ecr:{region}:123456789012:repository/churn" in text


def test_a_role_that_is_only_named_is_looked_up_or_else_the_callers(moto: MotoServer, tmp_path: Path) -> None:
    client = moto.client("iam")
    client.create_role(RoleName="there", Path="/teams/", AssumeRolePolicyDocument="{}")
    client.close()
    for role, path in (("there", "teams/there"), ("missing", "missing")):
        file = described(tmp_path, "churn", "s3://models/churn/", role=role, region="us-east-1")
        document = policy(local(moto.url), "deployer", file)
        arn = f"arn:aws:iam::123456789012:role/{path}"
        assert allows(
            document, Demand("iam:PassRole", arn, {"iam:PassedToService": "sagemaker.amazonaws.com"})
        )


def test_an_endpoint_that_is_there_needs_no_file(tmp_path: Path) -> None:
    with Service(tmp_path / "state") as service:
        service.s3.create_bucket(Bucket="models")
        service.create("churn", url="s3://models/churn/")
        document = policy(local(service.url), "execution-role", "churn")
        missing = local(service.url)("iam", "caller", "nowhere", code=7)
    assert allows(document, Demand("s3:GetObject", "arn:aws:s3:::models/churn/a.tar.gz"))
    assert allows(document, Demand("ecr:BatchGetImage", "arn:aws:ecr:us-east-1:123456789012:repository/any"))
    assert "there is no endpoint nowhere" in missing.stderr
