"""Broken loads and unloads."""

from __future__ import annotations

import mmap
import threading
import time

from .container import TARGET, Answer, Container, Model, Refused
from .registry import breaks

#: How long what should have been done before the answer takes after it.
LATE_S = 2.0


@breaks("load")
class LoadIsOnlyAccepted(Container):
    """Answers a load with 202."""

    def load(self, name: str, url: str, headers: dict[str, str]) -> Answer:
        answer = super().load(name, url, headers)
        answer.status = 202
        return answer


@breaks("load")
class LoadAnswersEarly(Container):
    """Answers a load with 200 before the model serves: a few invocations too early."""

    def __init__(self) -> None:
        super().__init__()
        self.early: dict[str, int] = {}

    def load(self, name: str, url: str, headers: dict[str, str]) -> Answer:
        answer = super().load(name, url, headers)
        self.early[name] = 3
        return answer

    def invoke(self, name: str, headers: dict[str, str], body: bytes) -> Answer:
        if self.early.get(name, 0) > 0:
            self.early[name] -= 1
            raise Refused(503, "no worker is ready")
        return super().invoke(name, headers, body)


class _SecondLoad(Container):
    """Subclasses answer the load of a loaded model in ``again``."""

    def load(self, name: str, url: str, headers: dict[str, str]) -> Answer:
        if name in self.models:
            return self.again(name, url)
        return super().load(name, url, headers)

    def again(self, name: str, url: str) -> Answer:
        raise NotImplementedError


@breaks("load-conflict")
class SecondLoadIsFine(_SecondLoad):
    """Answers the load of a loaded model with 200."""

    def again(self, name: str, url: str) -> Answer:
        return Answer(200)


@breaks("load-conflict")
class SecondLoadIsABadRequest(_SecondLoad):
    """Answers the load of a loaded model with 400."""

    def again(self, name: str, url: str) -> Answer:
        raise Refused(400, "already registered")


@breaks("load-conflict")
class SecondLoadDropsTheFirst(_SecondLoad):
    """Answers the load of a loaded model with 409, and unloads it."""

    def again(self, name: str, url: str) -> Answer:
        self.unload(name)
        raise Refused(409, "already registered")


@breaks("load-conflict")
class SecondLoadReplacesTheFirst(_SecondLoad):
    """Answers the load of a loaded model with 409, and serves the new folder from then on."""

    def again(self, name: str, url: str) -> Answer:
        self.unload(name)
        super().load(name, url, {})
        raise Refused(409, "already registered")


class _Full(Container):
    """Subclasses say in ``full`` what becomes of a model that does not fit."""

    def load(self, name: str, url: str, headers: dict[str, str]) -> Answer:
        try:
            return super().load(name, url, headers)
        except Refused as refused:
            if refused.answer.status == 507:
                self.full(name, url)
            raise

    def full(self, name: str, url: str) -> None:
        raise NotImplementedError


@breaks("load-out-of-memory", image_only=True)
class OutOfMemoryIs500(_Full):
    """Answers 500 when a model does not fit."""

    def full(self, name: str, url: str) -> None:
        raise Refused(500, "Failed to start workers")


@breaks("load-out-of-memory", image_only=True)
class OutOfMemoryLeavesTheModelRegistered(_Full):
    """Keeps what did not fit registered, so that loading it again is a conflict (as MMS 1.1.11 does)."""

    def full(self, name: str, url: str) -> None:
        self.models[name] = Model(name, url)
        self.models[name].hold_bytes = 0


@breaks("load-out-of-memory", image_only=True)
class OutOfMemoryForEver(_Full):
    """Once full, answers every load with 507."""

    was_full = False

    def full(self, name: str, url: str) -> None:
        self.was_full = True

    def make_room(self, model: Model) -> None:
        # Models that hold nothing do not notice, so that other clauses do not.
        if self.was_full and model.hold_bytes:
            raise Refused(507, "no memory")
        super().make_room(model)


@breaks("load-out-of-memory", image_only=True)
class MemoryIsNotCounted(Container):
    """Loads until the kernel ends the process."""

    def make_room(self, model: Model) -> None:
        pass


class _FailedLoad(Container):
    """Subclasses say in ``failed`` what becomes of a model whose load fails."""

    def load(self, name: str, url: str, headers: dict[str, str]) -> Answer:
        try:
            return super().load(name, url, headers)
        except Refused as refused:
            if refused.answer.status in (404, 500):
                return self.failed(name, url, refused)
            raise

    def failed(self, name: str, url: str, refused: Refused) -> Answer:
        raise NotImplementedError


@breaks("load-failure-answered")
class BrokenModelIsFine(_FailedLoad):
    """Answers a load that failed with 200; the model is listed, and each invocation fails."""

    def failed(self, name: str, url: str, refused: Refused) -> Answer:
        self.models[name] = Model(name, url)
        return Answer(200)

    def invoke(self, name: str, headers: dict[str, str], body: bytes) -> Answer:
        if (self.loaded(name).folder / "broken").exists():
            raise Refused(500, "the model is broken")
        return super().invoke(name, headers, body)


@breaks("load-failure-answered")
class BrokenModelIs507(_FailedLoad):
    """Answers a load that failed as if memory was short: the platform evicts for nothing."""

    def failed(self, name: str, url: str, refused: Refused) -> Answer:
        raise Refused(507, str(refused))


@breaks("load-failure-answered")
class BrokenModelIs409(_FailedLoad):
    """Answers a load that failed as if the model was loaded."""

    def failed(self, name: str, url: str, refused: Refused) -> Answer:
        raise Refused(409, str(refused))


class _FailedStays(_FailedLoad):
    """Keeps the names of failed loads until they are loaded or unloaded."""

    def __init__(self) -> None:
        super().__init__()
        self.failures: dict[str, str] = {}

    def failed(self, name: str, url: str, refused: Refused) -> Answer:
        self.failures[name] = url
        raise refused

    def load(self, name: str, url: str, headers: dict[str, str]) -> Answer:
        answer = super().load(name, url, headers)
        self.failures.pop(name, None)
        return answer

    def unload(self, name: str) -> Answer:
        if self.failures.pop(name, None):
            return Answer(200)
        return super().unload(name)


@breaks("load-failure-unlisted")
class FailedLoadStaysListed(_FailedStays):
    """Lists a model whose load failed, until it is loaded or unloaded."""

    def list_models(self, token: str) -> Answer:
        answer = super().list_models(token)
        answer.body["models"] += [{"modelName": n, "modelUrl": u} for n, u in self.failures.items()]
        return answer


@breaks("load-failure-unlisted")
class FailedLoadIsStillFound(_FailedStays):
    """Answers GET of a model whose load failed with 200."""

    def get(self, name: str) -> Answer:
        if name in self.failures:
            return Answer(200, {"modelName": name, "modelUrl": self.failures[name], "status": "FAILED"})
        return super().get(name)


@breaks("load-failure-retryable")
class FailedLoadIsAConflictLater(_FailedStays):
    """Answers 409 when a model whose load failed is loaded again."""

    def load(self, name: str, url: str, headers: dict[str, str]) -> Answer:
        if name in self.failures:
            raise Refused(409, "already registered")
        return super().load(name, url, headers)


@breaks("load-failure-retryable")
class FailureIsRemembered(_FailedStays):
    """Answers 500 for a folder that failed once, though it was mended."""

    def load(self, name: str, url: str, headers: dict[str, str]) -> Answer:
        if name in self.failures:
            raise Refused(500, "this model is broken")
        return super().load(name, url, headers)


@breaks("load-concurrent")
class OneLoadAtATime(Container):
    """Answers 503 to a load while another model loads."""

    def make_room(self, model: Model) -> None:
        if self.loading:
            raise Refused(503, "another model is loading")
        super().make_room(model)

    def start(self, model: Model) -> None:
        super().start(model)
        time.sleep(0.05)


@breaks("load-concurrent")
class ConcurrentLoadsLoseModels(Container):
    """Forgets what was loaded while another load was under way, and says 200."""

    def load(self, name: str, url: str, headers: dict[str, str]) -> Answer:
        answer = super().load(name, url, headers)
        with self.lock:
            if self.loading:
                self.models.pop(name).free()
        return answer

    def start(self, model: Model) -> None:
        super().start(model)
        time.sleep(0.05)


@breaks("load-concurrent-same-name")
class ConcurrentLoadsOfOneNameAllWin(Container):
    """Answers 200 to the load of a name that is loading."""

    def conflict(self, name: str) -> Refused:
        return super().conflict(name) if name in self.models else Refused(200, "it is loading")

    def start(self, model: Model) -> None:
        super().start(model)
        time.sleep(0.1)


@breaks("load-concurrent-same-name")
class ConcurrentLoadsOfOneNameAllLose(Container):
    """Gives a load up when its name is asked for again meanwhile: each is answered with 409."""

    def __init__(self) -> None:
        super().__init__()
        self.given_up: set[str] = set()

    def conflict(self, name: str) -> Refused:
        if name in self.loading:
            self.given_up.add(name)
        return super().conflict(name)

    def start(self, model: Model) -> None:
        super().start(model)
        time.sleep(0.1)
        if model.name in self.given_up:
            self.given_up.discard(model.name)
            model.free()
            raise super().conflict(model.name)


class _Names(Container):
    """Subclasses change a model's name in ``renamed``."""

    def renamed(self, name: str) -> str:
        raise NotImplementedError

    def load(self, name: str, url: str, headers: dict[str, str]) -> Answer:
        return super().load(self.renamed(name), url, headers)

    def loaded(self, name: str) -> Model:
        return super().loaded(self.renamed(name))

    def unload(self, name: str) -> Answer:
        return super().unload(self.renamed(name))


@breaks("load-opaque-names")
class NamesAreLowered(_Names):
    """Knows names in lower case only."""

    def renamed(self, name: str) -> str:
        return name.lower()


@breaks("load-opaque-names")
class LongNamesAreRefused(_Names):
    """Answers 400 for names above 32 characters."""

    def renamed(self, name: str) -> str:
        if len(name) > 32:
            raise Refused(400, "a name has 32 characters at most")
        return name


@breaks("load-opaque-names")
class DotsEndNames(_Names):
    """Cuts a name at its first dot, as if it was a file's suffix."""

    def renamed(self, name: str) -> str:
        return name.partition(".")[0]


@breaks("load-with-target-header")
class TargetHeaderNamesTheLoad(Container):
    """Loads under the name in the target-model header, where a load has one."""

    def load(self, name: str, url: str, headers: dict[str, str]) -> Answer:
        return super().load(headers.get(TARGET, name), url, headers)


@breaks("load-with-target-header")
class TargetHeaderIsABadRequest(Container):
    """Answers 400 to a load with the target-model header."""

    def load(self, name: str, url: str, headers: dict[str, str]) -> Answer:
        if TARGET in headers:
            raise Refused(400, "unexpected header")
        return super().load(name, url, headers)


# --- unload --------------------------------------------------------------------------------------


@breaks("unload")
class UnloadedModelStaysListed(Container):
    """Lists an unloaded model until another one is loaded."""

    def __init__(self) -> None:
        super().__init__()
        self.gone: list[dict[str, str]] = []

    def load(self, name: str, url: str, headers: dict[str, str]) -> Answer:
        self.gone.clear()
        return super().load(name, url, headers)

    def unload(self, name: str) -> Answer:
        entry = self.loaded(name).entry()
        answer = super().unload(name)
        self.gone.append(entry)
        return answer

    def list_models(self, token: str) -> Answer:
        answer = super().list_models(token)
        answer.body["models"] += self.gone
        return answer


@breaks("unload")
class UnloadDoesNothing(Container):
    """Answers 200 and keeps the model the first time; a second DELETE works."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: set[str] = set()

    def unload(self, name: str) -> Answer:
        model = self.loaded(name)
        if name not in self.asked:
            self.asked.add(name)
            return Answer(200)
        self.asked.discard(name)
        return super().unload(model.name)


@breaks("unload")
class UnloadHasNoContentStatus(Container):
    """Answers 204."""

    def unload(self, name: str) -> Answer:
        super().unload(name)
        return Answer(204)


@breaks("unload-not-loaded")
class UnloadOfAnUnknownModelIsFine(Container):
    """Answers 200 for a model that is not loaded."""

    def unload(self, name: str) -> Answer:
        try:
            return super().unload(name)
        except Refused:
            return Answer(200)


@breaks("unload-not-loaded")
class UnloadOfAnUnknownModelIs500(Container):
    """Answers 500 for a model that is not loaded."""

    def unload(self, name: str) -> Answer:
        try:
            return super().unload(name)
        except Refused as refused:
            raise Refused(500, str(refused)) from refused


@breaks("unload-frees-memory")
class UnloadAnswersBeforeTheMemoryIsFree(Container):
    """Frees a model's memory 2 s after it answered the unload."""

    def release(self, model: Model) -> None:
        timer = threading.Timer(LATE_S, model.free)
        timer.daemon = True
        timer.start()


@breaks("unload-frees-memory")
class UnloadKeepsHalfOfTheMemory(Container):
    """Never frees half of what models held."""

    def __init__(self) -> None:
        super().__init__()
        self.leaked: list[mmap.mmap] = []

    def release(self, model: Model) -> None:
        if model.held is not None:
            model.held.resize(model.hold_bytes // 2)
            self.leaked.append(model.held)


@breaks("unload-churn")
class ConcurrentUnloadsFail(Container):
    """Answers 500 to an unload while another one runs."""

    def release(self, model: Model) -> None:
        alone = len(self.unloading) == 1
        time.sleep(0.05)
        super().release(model)
        if not alone:
            with self.lock:
                del self.unloading[model.name]
            raise Refused(500, "another model is being unloaded")


@breaks("unload-churn")
class EachNameWorksThreeTimes(Container):
    """Answers 500 to the fourth load of a name, as servers do that use up what they hand out."""

    def __init__(self) -> None:
        super().__init__()
        self.loads: dict[str, int] = {}

    def load(self, name: str, url: str, headers: dict[str, str]) -> Answer:
        if self.loads.get(name, 0) >= 3:
            raise Refused(500, "out of worker slots")
        answer = super().load(name, url, headers)
        self.loads[name] = self.loads.get(name, 0) + 1
        return answer
