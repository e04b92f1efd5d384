from __future__ import annotations

from mmekit_toolkit.images.build_output import explain, failed_step

BUILDKIT = """\
#0 building with "default" instance using docker driver

#1 [internal] load build definition from Dockerfile
#1 transferring dockerfile: 113B done
#1 DONE 0.0s

#4 [1/3] FROM docker.io/library/python:3.11-slim
#4 CACHED

#5 [2/3] RUN pip install no-such-thing
#5 2.104 ERROR: No matching distribution found for no-such-thing
#5 ERROR: process "/bin/sh -c pip install no-such-thing" did not complete successfully: exit code: 1
------
 > [2/3] RUN pip install no-such-thing:
2.104 ERROR: No matching distribution found for no-such-thing
------
Dockerfile:2
--------------------
   1 |     FROM python:3.11-slim
   2 | >>> RUN pip install no-such-thing
   3 |     RUN true
--------------------
ERROR: failed to build: failed to solve: process "/bin/sh -c pip install no-such-thing" did not complete \
successfully: exit code: 1
"""

LEGACY = """\
Sending build context to Docker daemon  2.048kB
Step 1/3 : FROM python:3.11-slim
 ---> bf08bf6011d9
Step 2/3 : RUN pip install no-such-thing
 ---> Running in 0123456789ab
ERROR: No matching distribution found for no-such-thing
The command '/bin/sh -c pip install no-such-thing' returned a non-zero code: 1
"""

NO_BASE = """\
Sending build context to Docker daemon  2.048kB
Step 1/1 : FROM mmekit:cpu
pull access denied for mmekit, repository does not exist or may require 'docker login'
"""


def test_the_failed_step_is_found_in_what_either_builder_prints() -> None:
    assert failed_step(BUILDKIT) == "2/3: RUN pip install no-such-thing"
    assert failed_step(LEGACY) == "2/3: RUN pip install no-such-thing"
    assert failed_step("unable to prepare context: path not found") is None


def test_of_many_stages_the_failed_one_is_named() -> None:
    assert failed_step("------\n > [build 3/5] COPY a b:\n------\n") == "build 3/5: COPY a b"


def test_a_failed_build_gives_code_step_and_last_line() -> None:
    assert explain(1, LEGACY) == (
        "docker build ended with code 1 at step 2/3: RUN pip install no-such-thing. Its last line: "
        "The command '/bin/sh -c pip install no-such-thing' returned a non-zero code: 1"
    )


def test_what_was_drawn_on_a_terminal_is_not_repeated() -> None:
    assert explain(1, "") == "docker build ended with code 1. What it said is above."


def test_known_causes_come_with_what_helps() -> None:
    assert "-t mmekit:cpu" in explain(1, NO_BASE)
    assert "binfmt" in explain(1, "exec /bin/sh: exec format error")
    assert "docker builder prune" in explain(1, "write /x: no space left on device")
