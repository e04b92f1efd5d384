"""What a clause works with: a server, models for it, and ways to do things at the same time.

Each check has a bench of its own. Its deadline bounds each request; what it loaded is unloaded at its end.
"""

from __future__ import annotations

import contextlib
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from mmekit_toolkit.contract.main_server import MainServer
from mmekit_toolkit.contract.sample import ProbeSample, Sample, make_readable
from mmekit_toolkit.contract.subjects import Launch, Running, Subject
from mmekit_toolkit.contract.verdict import Broken, Skipped
from mmekit_toolkit.contract.wire import Answer, Deadline, Server, Transcript, Unanswered

T = TypeVar("T")

#: Seconds for unloading what a check has left, and for one of them: no rule is checked by then.
_CLEAN_UP_S, _UNLOAD_S = 600.0, 60.0
#: Seconds that a model may take to answer after its load where that is not the question.
_PATIENCE_S = 5.0
_PAUSE_S = 0.1


@dataclass(frozen=True)
class Model:
    """A model's folder: ``folder`` here, ``url`` where the server sees it."""

    name: str
    url: str
    folder: Path
    identity: str


class Bench:
    """Everything that one check may use; ``beside`` is a server of its own in place of the main one."""

    def __init__(self, main: MainServer, timeout_s: float, beside: Running | None = None) -> None:
        self.main = main
        self.transcript = Transcript()
        #: Whether the check has ended the server, as one about SIGTERM does.
        self.ended_on_purpose = False
        self._beside = beside
        self._timeout_s = timeout_s
        self._deadline: Deadline | None = None
        self._folders: list[Path] = []
        self._loaded: dict[str, None] = {}

    # --- the server

    @property
    def subject(self) -> Subject:
        """What is checked."""
        return self.main.subject

    @property
    def running(self) -> Running:
        """The server. Raises NotStarted where it could not be started."""
        return self._beside or self.main.running

    @property
    def deadline(self) -> Deadline:
        """When the check must be over; its time runs from when the server can be used."""
        if self._deadline is None:
            self._deadline = Deadline(self._timeout_s)
        return self._deadline

    @property
    def server(self) -> Server:
        """A client of the server."""
        url = self.running.base_url  # started first: that is not the check's time
        return Server(url, self.deadline, self.transcript)

    @contextlib.contextmanager
    def another(
        self, *, port_from_variable: bool = False, memory_limit_bytes: int | None = None
    ) -> Iterator[Bench]:
        """Start a server beside the main one, with a time of its own, and end it. Raises NotStarted."""
        launch = Launch(port_from_variable, memory_limit_bytes, self.main.models_read_only)
        with self.subject.start(launch, self.main.start_timeout_s) as running:
            other = Bench(self.main, self._timeout_s, running)
            other.transcript = self.transcript
            try:
                yield other
            finally:
                other.remove_folders()

    # --- models

    @property
    def sample(self) -> Sample:
        """The kind of model that is used. Raises Uncheckable where the server cannot load it at all."""
        if not self.main.sample_is_checked:
            self.main.check_sample()
            self._deadline = None  # the check's own time begins now
        return self.main.sample

    def needs_probe(self) -> ProbeSample:
        """Return the kit's own model. Raises Skipped where the person's is used."""
        if not isinstance(self.sample, ProbeSample):
            raise Skipped("only the kit's own model can tell; it was not used because of --model")
        return self.sample

    def model(self, name: str | None = None) -> Model:
        """Make a model's folder; nothing is loaded."""
        model = self._folder(name)
        self.sample.write(model.folder, model.identity)
        make_readable(model.folder.parent)
        return model

    def model_holding(self, mib: int) -> Model:
        """Make a folder of the kit's model that holds so much memory. Raises Skipped without it."""
        model = self._folder()
        self.needs_probe().write(model.folder, model.identity, mib)
        make_readable(model.folder.parent)
        return model

    def broken_model(self) -> Model:
        """Make a folder of a model that no server can load."""
        model = self._folder()
        self.sample.write_broken(model.folder)
        make_readable(model.folder.parent)
        return model

    def mend(self, model: Model) -> None:
        """Put a model that can be loaded in the place of a broken one."""
        shutil.rmtree(model.folder)
        model.folder.mkdir()
        self.sample.write(model.folder, model.identity)
        make_readable(model.folder)

    def loaded(self, model: Model | None = None, headers: Mapping[str, str] | None = None) -> Model:
        """Return a model that is loaded and answers. Raises Skipped otherwise: another clause names it."""
        model = model or self.model()
        try:
            answer = self.load(model, headers)
            if not answer.ok:
                raise Skipped(f"it needs a loaded model, and a load was answered with {answer}")
            self.expect_comes_to_serve(model, "soon after its load")
        except Unanswered as error:
            raise Skipped(f"it needs a loaded model, and {error}") from error
        except Broken as error:
            raise Skipped(f"it needs a model that answers: {error}") from error
        return model

    def load(self, model: Model, headers: Mapping[str, str] | None = None) -> Answer:
        """Load a model, whatever is answered. Raises Unanswered."""
        self._loaded[model.name] = None
        return self.server.load(model.name, model.url, headers)

    def unload(self, model: Model) -> Answer:
        """Unload a model, whatever is answered. Raises Unanswered."""
        answer = self.server.unload(model.name)
        if answer.ok:
            self._loaded.pop(model.name, None)
        return answer

    def invoke(self, model: Model, headers: Mapping[str, str] | None = None) -> Answer:
        """Send the sample's request to a model, with further headers. Raises Unanswered."""
        return self.server.invoke(model.name, self.sample.body, {**self.sample.headers, **(headers or {})})

    def expect_serves(self, model: Model, when: str) -> None:
        """Raise Broken unless the model answers the sample's request as it should."""
        answer = self.invoke(model)
        fault = self.sample.fault(answer, model.identity)
        answer.expect(not fault, f"{fault} {when}")

    def expect_comes_to_serve(self, model: Model, when: str) -> None:
        """Raise Broken unless the model answers as it should in a while, Skipped where no model ever does.

        That it answers at once is the rule of one clause, and that it answers at all of another.
        """
        sample = self.sample
        if not self.main.sample_answers:
            raise Skipped("it needs a model that answers; the first that was loaded never did")
        answer = self.invoke_patiently(model)
        fault = sample.fault(answer, model.identity)
        answer.expect(not fault, f"{fault} {when}")

    def invoke_patiently(self, model: Model) -> Answer:
        """Invoke until the answer is right, or too much time has gone; return the last. Raises Unanswered."""
        until = time.monotonic() + _PATIENCE_S
        while True:
            answer = self.invoke(model)
            if not self.sample.fault(answer, model.identity) or time.monotonic() > until:
                return answer
            time.sleep(_PAUSE_S)

    # --- at the same time

    def together(self, calls: Sequence[Callable[[], T]]) -> list[T]:
        """Make all calls at once; return what they return, in order. The first that raised is raised."""
        results: dict[int, T] = {}
        errors: list[Exception] = []

        def run(number: int, call: Callable[[], T]) -> None:
            try:
                results[number] = call()
            except Exception as error:  # noqa: BLE001  # a thread's border: raised below, in the caller's thread
                errors.append(error)

        threads = [threading.Thread(target=run, args=pair, daemon=True) for pair in enumerate(calls)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if errors:
            raise errors[0]
        return [results[number] for number in range(len(calls))]

    @contextlib.contextmanager
    def meanwhile(self, *calls: Callable[[], object]) -> Iterator[None]:
        """Make each call again and again, each in a thread of its own, until the block ends or it raises.

        The first error is raised at the end of the block.
        """
        over = threading.Event()
        errors: list[Exception] = []

        def run(call: Callable[[], object]) -> None:
            while not over.is_set():
                try:
                    call()
                except Exception as error:  # noqa: BLE001  # as above
                    errors.append(error)
                    return

        threads = [threading.Thread(target=run, args=[call], daemon=True) for call in calls]
        for thread in threads:
            thread.start()
        try:
            yield
        except KeyboardInterrupt:
            threads = []  # their requests end with the server
            raise
        finally:
            over.set()
            for thread in threads:
                thread.join()
        if errors:
            raise errors[0]

    # --- the end

    def clean_up(self) -> bool:
        """Unload what the check has left and remove its folders; return False where a model stays."""
        server = Server(self.running.base_url, Deadline(_CLEAN_UP_S))
        left = False
        for name in list(self._loaded):
            try:
                server.unload(name, _UNLOAD_S)
                left = left or server.get(name).ok
            except (Unanswered, Skipped):
                left = True
                break
        self.remove_folders()
        return not left

    def remove_folders(self) -> None:
        """Remove the models' folders."""
        for folder in self._folders:
            shutil.rmtree(folder, ignore_errors=True)

    def _folder(self, name: str | None = None) -> Model:
        name = name or secrets.token_hex(16)
        folder = self.subject.models.here / name
        self._folders.append(folder)
        (folder / "model").mkdir(parents=True)
        return Model(name, f"{self.subject.models.there}/{name}/model", folder / "model", f"identity-{name}")
