"""Broken invocations."""

from __future__ import annotations

import threading
import time

from .container import ATTRIBUTES, MIB, TARGET, Answer, Container, Cut, Model, Refused
from .registry import breaks


@breaks("invoke")
class InvokeFails(Container):
    """Answers 500 to every invocation of a loaded model."""

    def invoke(self, name: str, headers: dict[str, str], body: bytes) -> Answer:
        self.loaded(name)
        raise Refused(500, "Prediction failed")


@breaks("invoke-not-loaded")
class InvokeOfAnUnknownModelIs500(Container):
    """Answers 500 when the model is not loaded."""

    def invoke(self, name: str, headers: dict[str, str], body: bytes) -> Answer:
        if name not in self.models:
            raise Refused(500, "KeyError")
        return super().invoke(name, headers, body)


@breaks("invoke-not-loaded")
class InvokeOfAnUnloadedModelIs503(Container):
    """Answers 503 when the model was loaded once, and 404 when it never was."""

    def __init__(self) -> None:
        super().__init__()
        self.unloaded: set[str] = set()

    def unload(self, name: str) -> Answer:
        answer = super().unload(name)
        self.unloaded.add(name)
        return answer

    def invoke(self, name: str, headers: dict[str, str], body: bytes) -> Answer:
        if name not in self.models and name in self.unloaded:
            raise Refused(503, "no worker is available")
        return super().invoke(name, headers, body)


class _Counting(Container):
    """Knows how many invocations are under way."""

    def __init__(self) -> None:
        super().__init__()
        self.running = 0
        self.counting = threading.Lock()

    def invoke(self, name: str, headers: dict[str, str], body: bytes) -> Answer:
        model = self.loaded(name)
        with self.counting:
            self.running += 1
            running = self.running
        try:
            self.admit_invocation(running)
            return model.answer(headers, body)
        finally:
            with self.counting:
                self.running -= 1

    def admit_invocation(self, running: int) -> None:
        raise NotImplementedError


@breaks("invoke-concurrent")
class OneInvocationAtATime(_Counting):
    """Answers 503 to an invocation while another one runs."""

    def admit_invocation(self, running: int) -> None:
        if running > 1:
            raise Refused(503, "busy")


@breaks("invoke-concurrent")
class AnswersAreMixedUp(_Counting):
    """Gives an invocation the body of one that came to the same model while it waited."""

    def __init__(self) -> None:
        super().__init__()
        self.bodies: dict[str, bytes] = {}

    def admit_invocation(self, running: int) -> None:
        """Admit all."""

    def invoke(self, name: str, headers: dict[str, str], body: bytes) -> Answer:
        self.bodies[name] = body
        if self.running:
            time.sleep(0.02)
        return super().invoke(name, headers, self.bodies[name])


@breaks("invoke-during-load")
class NoInvocationsDuringLoads(Container):
    """Answers 503 to an invocation while another model loads."""

    def invoke(self, name: str, headers: dict[str, str], body: bytes) -> Answer:
        model = self.loaded(name)
        if self.loading:
            raise Refused(503, "loading")
        return model.answer(headers, body)

    def start(self, model: Model) -> None:
        super().start(model)
        time.sleep(0.1)


class _Model(Container):
    """Subclasses change what a model sees and says."""

    def invoke(self, name: str, headers: dict[str, str], body: bytes) -> Answer:
        return self.said(super().invoke(name, self.seen(dict(headers)), body))

    def seen(self, headers: dict[str, str]) -> dict[str, str]:
        return headers

    def said(self, answer: Answer) -> Answer:
        return answer


@breaks("content-types")
class ContentTypeLosesItsParameters(_Model):
    """Cuts ``; charset=…`` off before the model sees the content type."""

    def seen(self, headers: dict[str, str]) -> dict[str, str]:
        if "content-type" in headers:
            headers["content-type"] = headers["content-type"].partition(";")[0].strip()
        return headers


@breaks("content-types")
class AcceptIsDropped(_Model):
    """Does not hand ``Accept`` to the model."""

    def seen(self, headers: dict[str, str]) -> dict[str, str]:
        headers.pop("accept", None)
        return headers


@breaks("content-types")
class EveryAnswerIsJson(_Model):
    """Answers as ``application/json``, whatever the model said."""

    def said(self, answer: Answer) -> Answer:
        answer.headers["Content-Type"] = "application/json"
        return answer


@breaks("custom-attributes")
class AttributesAreDropped(_Model):
    """Does not hand custom attributes to the model."""

    def seen(self, headers: dict[str, str]) -> dict[str, str]:
        headers.pop(ATTRIBUTES, None)
        return headers


@breaks("custom-attributes")
class AttributesAreCut(_Model):
    """Hands the first 256 characters of custom attributes to the model."""

    def seen(self, headers: dict[str, str]) -> dict[str, str]:
        if ATTRIBUTES in headers:
            headers[ATTRIBUTES] = headers[ATTRIBUTES][:256]
        return headers


@breaks("custom-attributes")
class AttributesDoNotComeBack(_Model):
    """Leaves the model's custom attributes out of the answer."""

    def said(self, answer: Answer) -> Answer:
        answer.headers.pop(ATTRIBUTES, None)
        return answer


@breaks("custom-attributes")
class LongAttributesAreRefused(_Model):
    """Answers 431 to custom attributes above 1000 characters."""

    def seen(self, headers: dict[str, str]) -> dict[str, str]:
        if len(headers.get(ATTRIBUTES, "")) > 1000:
            raise Refused(431, "the header is too large")
        return headers


@breaks("target-header-ignored")
class TargetHeaderChoosesTheModel(Container):
    """Invokes the model that the target-model header names, where that one is loaded."""

    def invoke(self, name: str, headers: dict[str, str], body: bytes) -> Answer:
        self.loaded(name)
        target = headers.get(TARGET, "")
        return super().invoke(target if target in self.models else name, headers, body)


@breaks("target-header-ignored")
class TargetHeaderStandsIn(Container):
    """Invokes the model that the target-model header names when the one in the path is not loaded."""

    def invoke(self, name: str, headers: dict[str, str], body: bytes) -> Answer:
        if name not in self.models and headers.get(TARGET) in self.models:
            name = headers[TARGET]
        return super().invoke(name, headers, body)


@breaks("target-header-ignored")
class TargetHeaderIsRemembered(Container):
    """Notes the target-model header of each load, and invokes the model that was loaded with the same."""

    def __init__(self) -> None:
        super().__init__()
        self.targets: dict[str, str] = {}

    def load(self, name: str, url: str, headers: dict[str, str]) -> Answer:
        answer = super().load(name, url, headers)
        if TARGET in headers:
            self.targets[headers[TARGET]] = name
        return answer

    def invoke(self, name: str, headers: dict[str, str], body: bytes) -> Answer:
        self.loaded(name)
        known = self.targets.get(headers.get(TARGET, ""), name)
        return super().invoke(known if known in self.models else name, headers, body)


@breaks("unknown-headers-ignored")
class InferenceIdIsRefused(_Model):
    """Answers 400 to an invocation with an inference id."""

    def seen(self, headers: dict[str, str]) -> dict[str, str]:
        if "x-amzn-sagemaker-inference-id" in headers:
            raise Refused(400, "unexpected header")
        return headers


@breaks("unknown-headers-ignored")
class SessionsAreNotImplemented(_Model):
    """Answers 501 to an invocation with a session id."""

    def seen(self, headers: dict[str, str]) -> dict[str, str]:
        if "x-amzn-sagemaker-session-id" in headers:
            raise Refused(501, "no sessions here")
        return headers


@breaks("payload-6-mib")
class PayloadsAbove1MibAreRefused(Container):
    """Answers 413 before it reads a body above 1 MiB."""

    def admit(self, method: str, path: str, length: int) -> None:
        if length > MIB:
            raise Refused(413, "too large")


@breaks("payload-6-mib")
class PayloadsAbove5MibAreCut(Container):
    """Closes the connection when a body above 5 MiB has been read."""

    def invoke(self, name: str, headers: dict[str, str], body: bytes) -> Answer:
        if len(body) > 5 * MIB:
            raise Cut
        return super().invoke(name, headers, body)


@breaks("payload-6-mib")
class PayloadsAreCut(Container):
    """Hands the first 4 MiB to the model."""

    def invoke(self, name: str, headers: dict[str, str], body: bytes) -> Answer:
        return super().invoke(name, headers, body[: 4 * MIB])


@breaks("answer-6-mib")
class AnswersAreCut(_Model):
    """Sends the first 5 MiB of an answer, says so, and is done."""

    def said(self, answer: Answer) -> Answer:
        if len(body := answer.encoded()) > 5 * MIB:
            answer.body = body[: 5 * MIB]
        return answer


@breaks("answer-6-mib")
class AnswersBreakOff(_Model):
    """Announces the whole answer, sends 1 MiB and closes the connection."""

    def said(self, answer: Answer) -> Answer:
        if len(answer.encoded()) > 5 * MIB:
            answer.cut_after = MIB
        return answer


@breaks("answer-6-mib")
class AnswersAbove5MibFail(_Model):
    """Answers 500 in place of an answer above 5 MiB."""

    def said(self, answer: Answer) -> Answer:
        if len(answer.encoded()) > 5 * MIB:
            raise Refused(500, "Worker died.")
        return answer
