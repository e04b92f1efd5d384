"""The file that describes an endpoint: what is wrong with it is told with its line, in words, all at once."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from mmekit_toolkit.deploy import file
from mmekit_toolkit.errors import EXIT_CONFIG, BadDescription, NotFound
from tests.deploy.support import IMAGE, MINIMAL, ROLE, SCALED, describe

LINK = "private_link:\n  vpc: vpc-1\n  "

#: What is wrong → the file, and what is said of it. Lines 1–6 are MINIMAL's.
MISTAKES = {
    "text for a number": (
        SCALED.replace("min: 1", 'min: "1"'),
        ['endpoint.yaml:7: variants[0].autoscaling.min: expected an integer, found "1".'],
    ),
    "a fraction for a whole number": (
        MINIMAL + "    instances: 1.5\n",
        ["endpoint.yaml:7: variants[0].instances: expected an integer, found 1.5."],
    ),
    "a number for text": (
        MINIMAL + "environment:\n  OMP_NUM_THREADS: 1\n",
        ['endpoint.yaml:8: environment.OMP_NUM_THREADS: expected text, found 1: put it in quotes, "1".'],
    ),
    "a word that YAML reads as a boolean": (
        MINIMAL.replace("churn\nimage", "no\nimage"),
        ['endpoint.yaml:1: name: expected text, found false: put it in quotes, "false".'],
    ),
    "text for a boolean": (
        MINIMAL + 'cache: "yes"\n',
        ['endpoint.yaml:7: cache: expected true or false, found "yes".'],
    ),
    "a date": (
        MINIMAL + "tags: {since: 2024-05-01}\n",
        ["endpoint.yaml:7: tags.since: expected text, found 2024-05-01 (a date)."],
    ),
    "a date that is none": (
        MINIMAL + "tags: {since: 2024-13-01}\n",
        ["endpoint.yaml:7: tags.since: month must be in 1..12"],
    ),
    "a list for a mapping": (
        MINIMAL + "environment: [A, B]\n",
        ["endpoint.yaml:7: environment: expected names with values below it, found a list."],
    ),
    "a mapping for a list": (
        MINIMAL.replace("  - instance", "    instance"),
        ["endpoint.yaml:5: variants: expected a list, found names with values below it."],
    ),
    "nothing for a mapping": (
        MINIMAL + "environment:\n",
        ["endpoint.yaml:7: environment: expected names with values below it, found nothing."],
    ),
    "a typing error": (
        MINIMAL + "    instancs: 2\n",
        ["endpoint.yaml:7: variants[0].instancs: no such name; did you mean instances?"],
    ),
    "a name of another case": (
        MINIMAL + "network-isolation: true\n",
        ["endpoint.yaml:7: network-isolation: no such name; did you mean network_isolation?"],
    ),
    "a name that is nothing like any": (
        MINIMAL + "xyzzy: 1\n",
        ["endpoint.yaml:7: xyzzy: no such name. Known are name, image, role, models,"],
    ),
    "a name that is there twice": (
        MINIMAL + "name: other\n",
        ["endpoint.yaml:7: name is there twice; the first is at endpoint.yaml:1."],
    ),
    "a variable that is there twice": (
        MINIMAL + "environment:\n  A: x\n  A: y\n",
        ["endpoint.yaml:9: environment.A is there twice; the first is at endpoint.yaml:8."],
    ),
    "a number as a name": (
        MINIMAL + "tags:\n  7: x\n",
        ["endpoint.yaml:8: expected text as a name, found 7: put it in quotes."],
    ),
    "what must be there": (
        "name: churn\nvariants: [{}]\n",
        [
            "endpoint.yaml:1: image: is missing. Image in ECR",
            "role: is missing.",
            "models: is missing.",
            "endpoint.yaml:2: variants[0].instance_type: is missing. Such as ml.m5.xlarge.",
        ],
    ),
    "several at once": (
        MINIMAL.replace("s3://models/churn/", "models").replace("ml.m5", "ml.m55") + "    weight: -1\n",
        [
            "3 errors in endpoint.yaml:",
            ":4: models:",
            ":6: variants[0].instance_type:",
            ":7: variants[0].weight",
        ],
    ),
    "a tab": (MINIMAL + "environment:\n\tA: x\n", ["endpoint.yaml:8: a tab: YAML indents with spaces."]),
    "no YAML": (MINIMAL + "tags: [a\n", ["endpoint.yaml:8: expected ',' or ']', but got"]),
    "an unknown alias": (MINIMAL + "tags: *no\n", ["endpoint.yaml:7: found undefined alias 'no'."]),
    "a tag of Python's": (
        MINIMAL + "tags: {a: !!python/none x}\n",
        ["endpoint.yaml:7: tags.a: the tag tag:yaml.org,2002:python/none is not one of plain YAML."],
    ),
    "an alias of itself": (MINIMAL + "tags: &a {b: *a}\n", ["contains itself by an alias"]),
    "two documents": (MINIMAL + "---\nname: other\n", ["endpoint.yaml:7: a second document begins"]),
    "a list at the top": (
        "- name: churn\n",
        ["endpoint.yaml:1: expected names with values below it, found a list."],
    ),
    "a word at the top": (
        "churn\n",
        ['endpoint.yaml:1: expected names with values below it, found "churn".'],
    ),
    "an empty file": ("", ["endpoint.yaml: the file is empty. `mmekit deploy --schema` prints what it has."]),
    "comments only": ("# nothing\n", ["endpoint.yaml: the file is empty."]),
    "a name that is too long": (
        MINIMAL.replace("churn\nimage", "n" * 55 + "\nimage"),
        [
            "endpoint.yaml:1: name: expected at most 54 characters, found 55: SageMaker takes 63, and the "
            "names of models end with a hyphen and eight digits."
        ],
    ),
    "a name that SageMaker does not take": (
        MINIMAL.replace("churn\nimage", "churn_eu\nimage"),
        ["endpoint.yaml:1: name: expected text of the form [a-zA-Z0-9]"],
    ),
    "a prefix without its slash": (
        MINIMAL.replace("churn/\n", "churn\n"),
        [
            "endpoint.yaml:4: models: expected an S3 prefix that ends with a slash, such as s3://bucket/models/"
        ],
    ),
    "an instance type that does not exist": (
        MINIMAL.replace("m5.xlarge", "m5.xxlarge"),
        ['endpoint.yaml:6: variants[0].instance_type: "ml.m5.xxlarge" is none that AWS knows; did you'],
    ),
    "a volume that is too large": (
        MINIMAL + "    volume_gb: 513\n",
        ["endpoint.yaml:7: variants[0].volume_gb: expected at most 512, found 513."],
    ),
    "an infinite weight": (
        MINIMAL + "    weight: .inf\n",
        ["endpoint.yaml:7: variants[0].weight: expected a number, found inf."],
    ),
    "an image with a space": (
        MINIMAL.replace(IMAGE, '"a b"'),
        [r'endpoint.yaml:2: image: expected text of the form [\S]+, found "a b".'],
    ),
    "a region that is none": (
        "region: eu-west\n" + MINIMAL,
        ['endpoint.yaml:1: region: expected a region such as eu-west-1, found "eu-west".'],
    ),
    "a role of no account": (
        MINIMAL.replace(ROLE, "arn:aws:iam::role/churn"),
        ["endpoint.yaml:3: role: expected text of the form arn:aws", "expected a role's ARN or name."],
    ),
    "a variable's name with a hyphen": (
        MINIMAL + "environment: {A-B: x}\n",
        ["endpoint.yaml:7: environment.A-B: the name: expected text of the form"],
    ),
    "a value of more than 1024 characters": (
        MINIMAL + f"environment: {{A: {'x' * 1025}}}\n",
        ["endpoint.yaml:7: environment.A: expected at most 1024 characters, found 1025."],
    ),
    "a value of more than 1024 bytes": (
        MINIMAL + f"environment: {{A: {'ä' * 513}}}\n",
        ["endpoint.yaml:7: environment.A: expected a name and a value of at most 1024 bytes, found 1026."],
    ),
    "more than 100 variables": (
        MINIMAL + "environment:\n" + "".join(f"  A{n}: x\n" for n in range(101)),
        ["endpoint.yaml:7: environment: expected at most 100 entries, found 101."],
    ),
    "more than 32 KB of variables": (
        MINIMAL + "environment:\n" + "".join(f"  A{n}: {'x' * 1000}\n" for n in range(33)),
        ["endpoint.yaml:7: environment: expected at most 32768 bytes of names and values, found 33"],
    ),
    "more than 32 KB of variables of the file and of a variant": (
        MINIMAL
        + "    environment:\n"
        + "".join(f"      B{n}: {'x' * 1000}\n" for n in range(17))
        + "environment:\n"
        + "".join(f"  A{n}: {'x' * 1000}\n" for n in range(17)),
        ["endpoint.yaml:7: variants[0].environment: expected at most 32768 bytes"],
    ),
    "a maximum below the minimum": (
        SCALED.replace("max: 4", "max: 0"),
        ["endpoint.yaml:7: variants[0].autoscaling.max: expected at least 1, found 0."],
    ),
    "a minimum above the maximum": (
        SCALED.replace("min: 1", "min: 5"),
        ["endpoint.yaml:7: variants[0].autoscaling.max: expected at least min, which is 5, found 4."],
    ),
    "fewer instances than autoscaling has": (
        SCALED.replace("min: 1", "min: 2"),
        ["endpoint.yaml:6: variants[0].instances: expected 2 to 4, as autoscaling has it, found 1."],
    ),
    "autoscaling without a target": (
        SCALED.replace(", invocations_per_instance: 600", ""),
        ["endpoint.yaml:7: variants[0].autoscaling: expected exactly one target of", "found none."],
    ),
    "autoscaling with two targets": (
        SCALED.replace("600", "600, memory_percent: 80"),
        ["found invocations_per_instance and memory_percent."],
    ),
    "two variants of one name": (
        MINIMAL + "  - instance_type: ml.m5.large\n",
        ['endpoint.yaml:7: variants[1].name: "AllTraffic" is the name of variants[0], too.'],
    ),
    "no variant": (
        MINIMAL.replace("\n  - instance_type: ml.m5.xlarge", " []"),
        ["endpoint.yaml:5: variants: expected at least 1 entry, found 0."],
    ),
    "eleven variants": (
        MINIMAL + "".join(f"  - {{name: v{n}, instance_type: ml.m5.large}}\n" for n in range(10)),
        ["endpoint.yaml:5: variants: expected at most 10 entries, found 11."],
    ),
    "no weight": (
        MINIMAL + "    weight: 0\n",
        ["endpoint.yaml:5: variants: expected a weight above 0 for one variant at least."],
    ),
    "a step without steps": (
        MINIMAL + "update:\n  step_percent: 10\n",
        ["endpoint.yaml:8: update.step_percent: all-at-once has no steps: set traffic to canary or linear."],
    ),
    "a canary of most instances": (
        MINIMAL + "update: {traffic: canary, step_percent: 60}\n",
        ["endpoint.yaml:7: update.step_percent: expected at most 50, found 60."],
    ),
    "linear steps that are too small": (
        MINIMAL + "update: {traffic: linear, step_percent: 5}\n",
        ["endpoint.yaml:7: update.step_percent: expected at least 10 with traffic: linear, found 5."],
    ),
    "waits that take longer than the update may": (
        MINIMAL + "update: {traffic: linear, wait_s: 1500}\n",
        ["endpoint.yaml:7: update.timeout_s: expected more than 15000, as long as all waits of the update"],
    ),
    "a way of updating that AWS does not have": (
        MINIMAL + "update: {traffic: rolling}\n",
        ['endpoint.yaml:7: update.traffic: expected one of all-at-once, canary, linear, found "rolling".'],
    ),
    "more alarms than roll back": (
        MINIMAL.replace("  - instance", "  - &v\n    name: A\n    instance")
        + "    alarms: {errors_5xx_percent: 1, errors_4xx_percent: 1, memory_percent: 9, disk_percent: 9}\n"
        + "  - {<<: *v, name: B}\n  - {<<: *v, name: C}\n",
        ["update.rollback_on_alarms: AWS rolls back on at most 10 alarms; these are 12."],
    ),
    "a topic that is no ARN": (
        MINIMAL + "    alarms:\n      notify: [me@example.com]\n",
        ["endpoint.yaml:8: variants[0].alarms.notify[0]: expected the ARN of an SNS topic"],
    ),
    "a percentage above 100": (
        MINIMAL + "    alarms: {disk_percent: 101}\n",
        ["endpoint.yaml:7: variants[0].alarms.disk_percent: expected at most 100, found 101."],
    ),
    "a tag of AWS's": (
        MINIMAL + "tags: {'aws:x': y}\n",
        ["endpoint.yaml:7: tags.aws:x: names that begin with"],
    ),
    "a tag that AWS does not take": (
        MINIMAL + "tags: {a: 'x!'}\n",
        ["endpoint.yaml:7: tags.a: expected text of the form"],
    ),
    "49 tags": (
        MINIMAL + "tags: {" + ", ".join(f"t{n}: x" for n in range(49)) + "}\n",
        ["endpoint.yaml:7: tags: expected at most 48 tags, found 49: AWS takes 50, two are mmekit's."],
    ),
    "interface endpoints without subnets": (
        MINIMAL + LINK + "security_groups: [sg-1]\n",
        ["endpoint.yaml:7: private_link.subnets: is missing; the service runtime needs it."],
    ),
    "a gateway without route tables": (
        MINIMAL + LINK + "services: [s3]\n",
        ["endpoint.yaml:7: private_link.route_tables: is missing; the service s3 needs it."],
    ),
    "a subnet that is none": (
        MINIMAL + "vpc:\n  subnets: [subnet_1]\n  security_groups: [sg-1]\n",
        ["endpoint.yaml:8: vpc.subnets[0]: expected text of the form [-0-9a-zA-Z]+"],
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_told_with_its_line(
    mistake: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text, said = MISTAKES[mistake]
    monkeypatch.chdir(tmp_path)
    Path("endpoint.yaml").write_text(text)
    with pytest.raises(BadDescription) as caught:
        file.read(Path("endpoint.yaml"))
    assert caught.value.exit_code == EXIT_CONFIG
    for part in said:
        assert part in caught.value.message
    assert "Traceback" not in caught.value.message


def test_a_file_that_is_not_utf_8_is_told_with_the_byte(tmp_path: Path) -> None:
    path = tmp_path / "endpoint.yaml"
    path.write_bytes(MINIMAL.encode() + "# größer\n".encode("latin-1"))
    with pytest.raises(BadDescription, match=r"endpoint\.yaml: line 7 is not UTF-8 \(byte 0xf6\)"):
        file.read(path)


@pytest.mark.parametrize(
    "text",
    [
        "x: &a [y, y, y, y, y, y, y, y, y, y]\n"
        + "".join(f"x{c}: &{c} [{', '.join([f'*{p}'] * 6)}]\n" for p, c in pairwise("abcdefgh")),
        "[" * 5000,
        "x" * 2_000_000,
    ],
    ids=["aliases of aliases", "brackets", "two megabytes"],
)
def test_a_file_that_would_take_all_memory_is_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(BadDescription, match=r"endpoint\.yaml"):
        describe(tmp_path, text)


def test_a_file_that_is_not_there_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="there is no file"):
        file.read(tmp_path / "endpoint.yaml")
    with pytest.raises(BadDescription, match="cannot be read: Is a directory"):
        file.read(tmp_path)


def test_the_examples_can_be_used() -> None:
    examples = Path(__file__).parent.parent.parent / "examples"
    for path in examples.rglob("endpoint.yaml"):
        file.read(path)


def test_anchors_and_merge_keys_are_followed(tmp_path: Path) -> None:
    text = (
        MINIMAL.replace("  - instance", "  - &first\n    name: A\n    instance")
        + "  - {<<: *first, name: B}\n"
    )
    description = describe(tmp_path, text)
    assert [(v.name, v.instance_type) for v in description.variants] == [
        ("A", "ml.m5.xlarge"),
        ("B", "ml.m5.xlarge"),
    ]


def test_what_is_left_out_has_its_default(tmp_path: Path) -> None:
    description = describe(tmp_path, "\ufeff" + MINIMAL)
    (variant,) = description.variants
    assert (variant.name, variant.instances, variant.weight) == ("AllTraffic", 1, 1.0)
    assert description.cache
    assert description.update.traffic == "all-at-once"
    assert describe(tmp_path, MINIMAL + "    volume_gb:\n").variants[0].volume_gb is None


def test_options_stand_for_what_the_file_has(tmp_path: Path) -> None:
    path = tmp_path / "endpoint.yaml"
    path.write_text(MINIMAL)
    description = file.read(path, {"image": "other:2", "instances": 3})
    assert description.image == "other:2"
    assert description.variants[0].instances == 3
    with pytest.raises(BadDescription, match=r"^--instance-type: .* did you mean ml\.m5\.xlarge"):
        file.read(path, {"instance_type": "m5.xlarge"})
    path.write_text(MINIMAL + "  - {name: B, instance_type: ml.m5.large}\n")
    with pytest.raises(BadDescription, match=r"^--instances: is for endpoints of one variant"):
        file.read(path, {"instances": 3})


def test_options_alone_describe_an_endpoint() -> None:
    options = {"name": "churn", "image": IMAGE, "role": "churn", "models": "s3://m/"}
    description = file.compose({**options, "instance_type": "ml.m5.large"})
    assert description.variants[0].instance_type == "ml.m5.large"
    with pytest.raises(BadDescription, match=r"instance_type: is missing"):
        file.compose(options)
