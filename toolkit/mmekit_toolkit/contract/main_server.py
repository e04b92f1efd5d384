"""The one server that most clauses share: started when it is needed, and again when it has ended."""

from __future__ import annotations

import secrets
import shutil
import threading
import time

from mmekit_toolkit.contract.sample import ProbeSample, Sample, make_readable
from mmekit_toolkit.contract.subjects import Form, Launch, NotStarted, Running, Subject
from mmekit_toolkit.contract.verdict import Skipped
from mmekit_toolkit.contract.wire import Deadline, Server, Unanswered
from mmekit_toolkit.errors import ToolkitError

#: Seconds for the first load, and seconds that its model may take to answer after it.
_FIRST_LOAD_S = 120.0
_FIRST_ANSWER_S = 10.0


class Uncheckable(ToolkitError):
    """Raised when the server cannot load the model that it should be checked with."""


class MainServer:
    """Starts and ends the server; knows whether it can load the sample at all."""

    def __init__(self, subject: Subject, sample: Sample, start_timeout_s: float) -> None:
        self.subject = subject
        self.start_timeout_s = start_timeout_s
        #: Seconds from its last start until /ping answered.
        self.ready_after_s = 0.0
        #: Whether models are mounted read-only; false where it serves only without.
        self.models_read_only = True
        self.sample = sample
        #: Whether it is known that the server can load the sample.
        self.sample_is_checked = False
        #: Whether it answered, too, sooner or later; waiting for it is of no use where it did not.
        self.sample_answers = True
        self._starting = threading.Lock()
        self._running: Running | None = None
        self._not_started: NotStarted | None = None

    @property
    def running(self) -> Running:
        """The server. Raises NotStarted where it was started in vain, now or before."""
        with self._starting:  # callers in several threads get the same server
            if self._not_started is not None:
                raise self._not_started
            if self._running is None:
                self._running = self._start()
            return self._running

    def _start(self) -> Running:
        began = time.monotonic()
        try:
            running = self.subject.start(Launch(models_read_only=self.models_read_only), self.start_timeout_s)
        except NotStarted as error:
            self._not_started = error
            raise
        self.ready_after_s = time.monotonic() - began
        return running

    @property
    def not_started(self) -> NotStarted | None:
        """Why it could not be started; None where it could, or nobody needed it."""
        return self._not_started

    @property
    def started(self) -> Running | None:
        """The server, None where none was started, or the last one was discarded."""
        return self._running

    def discard(self) -> None:
        """End the server; the next one who needs it gets a new one."""
        if self._running is not None:
            running, self._running = self._running, None
            running.close()

    def check_sample(self) -> None:
        """Load the sample, ask it, unload it. Raises Uncheckable where that cannot be done, NotStarted."""
        self.sample.prepare(self.subject.models.here)
        fault = self._try_sample()
        if (fault or not self.sample_answers) and self.subject.form is Form.IMAGE:
            fault = self._try_sample_writable() and fault
        if fault:
            raise Uncheckable(fault + _advice(self.sample))
        self.sample_is_checked = True

    def _try_sample_writable(self) -> str:
        """Try again where the model's folder may be written to; that is a clause of its own."""
        self.discard()
        self.models_read_only = False
        fault = self._try_sample()
        if fault or not self.sample_answers:
            self.discard()
            self.models_read_only = True
        return fault

    def _try_sample(self) -> str:
        """Load a model, ask it, unload it; return why it cannot be used, "" where it can."""
        server = Server(self.running.base_url, Deadline(_FIRST_LOAD_S))
        name = secrets.token_hex(16)
        folder = self.subject.models.here / name / "model"
        folder.mkdir(parents=True)
        self.sample.write(folder, name)
        make_readable(folder.parent)
        try:
            loading = server.load(name, f"{self.subject.models.there}/{name}/model")
            if not loading.ok:
                return f"the load was answered with {loading}"
            return self._first_answer(server, name)
        except (Unanswered, Skipped) as error:
            return str(error)
        finally:
            try:
                server.unload(name)
            except (Unanswered, Skipped):
                pass  # what it does not answer is for the clauses to tell
            shutil.rmtree(folder.parent, ignore_errors=True)

    def _first_answer(self, server: Server, name: str) -> str:
        # Patient: that a model answers at once is a clause of its own.
        until = time.monotonic() + _FIRST_ANSWER_S
        while True:
            answer = server.invoke(name, self.sample.body, self.sample.headers)
            fault = self.sample.fault(answer, name)
            # 404 and 503 may mean: not yet. Other refusals are the model's.
            refused = 400 <= answer.status < 500 and answer.status != 404
            if not fault or refused or time.monotonic() > until:
                break
            time.sleep(0.2)
        self.sample_answers = not fault
        # A server that loads the kit's model can run it, and breaks a clause when it does not. With a
        # person's model the payload may be what is wrong.
        mine = isinstance(self.sample, ProbeSample)
        return (
            "" if mine or not fault else f"the load was answered with 200, and the invocation with {answer}"
        )


def _advice(sample: Sample) -> str:
    if isinstance(sample, ProbeSample):
        return (
            ". Expected: it loads the kit's own model, a folder with a handler for Multi Model Server "
            "(MAR-INF/MANIFEST.json, service.py). If it serves other models, name one of them: "
            "--model DIR --payload FILE --content-type TYPE."
        )
    return ". Expected: it loads the folder of --model and answers the bytes of --payload with 2xx."
