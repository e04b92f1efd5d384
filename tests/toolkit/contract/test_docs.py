"""docs/contract.md says what the kit has."""

from __future__ import annotations

import re
import subprocess

from mmekit_toolkit.contract.clause import Section
from mmekit_toolkit.contract.clauses import CLAUSES
from tests.toolkit.contract.grades import DOCUMENT, rows
from tests.toolkit.contract.kit import MMEKIT

TEXT = DOCUMENT.read_text()
#: [name]: URL
LINKS = dict(re.findall(r"^\[(.+?)\]: (\S+)$", TEXT, re.MULTILINE))


def test_the_table_has_the_clauses_of_the_kit() -> None:
    order = list(Section)
    expected = [
        (clause.name, clause.title, clause.source)
        for clause in sorted(CLAUSES, key=lambda clause: order.index(clause.section))
    ]
    assert [(row["name"], row["title"], LINKS[row["source"]]) for row in rows()] == expected


def test_the_command_lists_the_same() -> None:
    done = subprocess.run([MMEKIT, "contract", "--list"], capture_output=True, text=True, check=True)
    assert re.findall(r"^  ([\w-]+) ", done.stdout, re.MULTILINE) == [row["name"] for row in rows()]
    for row in rows():
        assert row["title"] in done.stdout
        assert LINKS[row["source"]] in done.stdout


def test_each_failure_has_a_note() -> None:
    headings = {heading[0] for heading in re.findall(r"^### (\d)\. MMS: ", TEXT, re.MULTILINE)}
    noted = [
        re.search(r"(?:failed|varies) \[\((\d)\)\]\(#", row[0]) for row in rows() if row["mms"] != "passed"
    ]
    assert {note[1] for note in noted if note} == headings
    assert None not in noted
    assert {row["ours"] for row in rows()} == {"passed"}


def test_each_option_that_the_text_names_is_there() -> None:
    helps = subprocess.run([MMEKIT, "contract", "--help"], capture_output=True, text=True, check=True).stdout
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", TEXT))
    pytest_options = {name for name in named if name.startswith("--mme-contract")} | {"--junitxml"}
    docker_options = {"--rm", "--filter"}
    assert {name for name in named - pytest_options - docker_options if name not in helps} == set()
