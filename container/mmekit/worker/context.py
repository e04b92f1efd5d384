"""What people's code gets to know of a request and may say about its answer.

``Context`` offers what MMS's ``mms.context.Context`` offers under the same names, so that handlers
written for MMS run as they are; ``Request`` is what framework handlers read. Both do nothing until
something is asked of them: a request that nobody asks about costs about a microsecond.
"""

from __future__ import annotations

import operator
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from mmekit.errors import PredictionFailed
from mmekit.worker import mms_api
from mmekit.worker.messages import Headers
from mmekit.worker.metrics import MetricsStore, reported

#: RFC 9110, 5.6.2: what a header's name may consist of.
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
#: RFC 9110, 5.5: no controls but the tab; bytes above 0x7F travel as latin-1.
_FIELD_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")


class HeaderMap(dict[str, Any]):
    """Headers of a request under the names that the client wrote; the last one of a name counts.

    A dict, as in MMS, so that it can be copied and written as JSON; but ``[]``, ``get`` and ``in``
    find a name in any case. For MMS handlers it has an entry for each part of the body as well,
    ``name → {"content-type": type}``; a header of that name comes first.
    """

    def __init__(self, headers: Headers, part_types: Mapping[str, str] | None = None) -> None:
        super().__init__()
        self._names: dict[str, str] = {}
        for raw_name, value in headers:
            name = raw_name.decode("latin-1")
            self[self._names.setdefault(name.lower(), name)] = value.decode("latin-1")
        for name, content_type in (part_types or {}).items():
            if name.lower() not in self._names:
                self._names[name.lower()] = name
                self[name] = {"content-type": content_type}

    def __missing__(self, name: str) -> Any:
        known = self._names.get(name.lower(), name)
        if known == name:
            raise KeyError(name)
        return self[known]

    def __contains__(self, name: object) -> bool:
        return super().__contains__(name) or (isinstance(name, str) and name.lower() in self._names)

    def get(self, name: str, default: Any = None) -> Any:
        return super().get(self._names.get(name.lower(), name), default)


class Request:
    """One request as handlers see it; ``body`` is not copied."""

    __slots__ = ("_headers", "_map", "body", "query", "request_id")

    def __init__(
        self, headers: Headers, body: bytes | bytearray | memoryview, request_id: str = "", query: str = ""
    ) -> None:
        self._headers = headers
        self._map: HeaderMap | None = None
        self.body = body
        self.request_id = request_id
        #: The raw query string where it is an input, "" elsewhere.
        self.query = query

    @property
    def headers(self) -> HeaderMap:
        if self._map is None:
            self._map = HeaderMap(self._headers_with_length())
        return self._map

    @property
    def content_type(self) -> str | None:
        return self._header(b"content-type")

    @property
    def accept(self) -> str | None:
        return self._header(b"accept")

    @property
    def custom_attributes(self) -> str | None:
        return self._header(b"x-amzn-sagemaker-custom-attributes")

    def headers_and_parts(self, part_types: Mapping[str, str]) -> HeaderMap:
        """Return headers and the content types of the body's parts, as MMS handlers get them."""
        return HeaderMap(self._headers_with_length(), part_types)

    def _headers_with_length(self) -> Headers:
        """Return the headers as if the body had come in one piece: MMS puts chunks together likewise."""
        if any(name.lower() == b"content-length" for name, _ in self._headers):
            return self._headers
        headers = [field for field in self._headers if field[0].lower() != b"transfer-encoding"]
        return [*headers, (b"content-length", b"%d" % len(self.body))]

    def _header(self, name: bytes) -> str | None:
        """Find one header without decoding the others."""
        length = len(name)
        found = None
        for key, value in self._headers:
            if len(key) == length and key.lower() == name:
                found = value
        return None if found is None else found.decode("latin-1")


class RequestProcessor:
    """One request of a batch and its answer's status and headers (MMS: mms/context.py)."""

    def __init__(self, request_header: Mapping[str, Any]) -> None:
        self._request_header: Mapping[str, Any] | None = request_header
        self._request: Request | None = None
        self._part_types: Mapping[str, str] = {}
        self._status = 200
        self._reason = ""
        self._headers: dict[str, str] = {}

    @classmethod
    def of(cls, request: Request, part_types: Mapping[str, str]) -> RequestProcessor:
        """Return the processor of a request; its headers are looked at when somebody asks."""
        processor = cls({})
        processor._request_header, processor._request = None, request
        processor._part_types = part_types
        return processor

    def get_request_property(self, key: str) -> Any:
        return self.get_request_properties().get(key)

    def get_request_properties(self) -> Mapping[str, Any]:
        if self._request_header is None:
            assert self._request is not None
            self._request_header = self._request.headers_and_parts(self._part_types)
        return self._request_header

    # What people pass may be anything, whatever MMS documents.
    def report_status(self, code: object, reason_phrase: object = None) -> None:
        """Set the answer's status, None meaning 200.

        Raises ``PredictionFailed`` for what no answer can have.
        """
        number = 200 if code is None else _whole_number(code)
        if number is None or not 200 <= number <= 599:
            raise PredictionFailed(f"The handler set the status {code!r}; expected a number from 200 to 599.")
        self._status = number
        # As sagemaker-inference does: a phrase is often an exception's text.
        self._reason = (
            " ".join(str(reason_phrase or "").split()).encode("latin-1", "replace").decode("latin-1")
        )

    def get_response_status_code(self) -> int:
        return self._status

    def get_response_status_phrase(self) -> str:
        return self._reason

    def add_response_property(self, key: object, value: object) -> None:
        """Set a header. Raises ``PredictionFailed`` for what is not one, so that nothing can be injected."""
        if not isinstance(key, str) or not _TOKEN.fullmatch(key):
            raise PredictionFailed(f"The handler set a header named {key!r}, which is not a header's name.")
        if not isinstance(value, str):
            raise PredictionFailed(
                f"The handler set the header {key} to {type(value).__name__} {value!r:.100}; expected a str."
            )
        if not _FIELD_VALUE.fullmatch(value):
            raise PredictionFailed(
                f"The handler set the header {key} to {value!r:.100}: line breaks, control characters and "
                "characters beyond latin-1 cannot be in a header."
            )
        self._headers[key] = value

    def get_response_headers(self) -> dict[str, str]:
        """Return a copy: what is put into it by hand would go unchecked."""
        return self._headers.copy()

    def get_response_header(self, key: str) -> str | None:
        return self._headers.get(key)


def _whole_number(value: object) -> int | None:
    """Return an int, a member of ``http.HTTPStatus`` or a numpy integer as an int."""
    try:
        return None if isinstance(value, bool) else operator.index(value)  # type: ignore[arg-type]  # anything
    except TypeError:
        return None


class Context:
    """A model, and the requests of one call to it; the names are those of MMS's Context.

    ``idx`` is the place in the batch. During load there are no requests, and setting things on
    the answer does nothing.
    """

    def __init__(
        self,
        model_name: str,
        model_dir: str,
        manifest: dict[str, Any] | None,
        batch_size: int,
        gpu: int | None,
        mms_version: str = mms_api.__version__,
    ) -> None:
        self.model_name = model_name
        self.manifest = manifest
        self._system_properties: dict[str, Any] = {
            "model_dir": model_dir,
            "gpu_id": gpu,
            "batch_size": batch_size,
            # Handlers compare these; they are served as by this MMS.
            "server_name": "MMS",
            "server_version": mms_version,
        }
        self._requests: Sequence[Request] = ()
        self._part_types: Sequence[Mapping[str, str]] = ()
        self._request_ids: dict[int, str] | None = None
        self._processors: list[RequestProcessor] | None = None
        self._metrics: MetricsStore | None = None

    def for_requests(self, requests: Sequence[Request]) -> Context:
        """Return a context of the same model for these requests."""
        context = Context.__new__(type(self))
        context.__dict__.update(self.__dict__)
        context.begin(requests)
        return context

    def begin(self, requests: Sequence[Request], part_types: Sequence[Mapping[str, str]] = ()) -> None:
        """Start a call: MMS keeps one context a model and replaces what belongs to the batch.

        ``part_types`` has for each request the content types of its inputs by name.
        """
        self._requests = requests
        self._part_types = part_types or [{}] * len(requests)
        self._request_ids = None
        self._processors = None
        self._metrics = None

    # --- the model

    @property
    def system_properties(self) -> dict[str, Any]:
        return self._system_properties

    # --- the requests

    @property
    def request(self) -> Request:
        """The first request of the call; the only one, unless the handler is given batches."""
        return self._requests[0]

    @property
    def request_processor(self) -> list[RequestProcessor] | None:
        if self._processors is None and self._requests:
            self._processors = [
                RequestProcessor.of(request, types)
                for request, types in zip(self._requests, self._part_types, strict=True)
            ]
        return self._processors

    @request_processor.setter
    def request_processor(self, processors: list[RequestProcessor] | None) -> None:
        self._processors = processors

    @property
    def request_ids(self) -> dict[int, str]:
        if self._request_ids is None:
            self._request_ids = {index: request.request_id for index, request in enumerate(self._requests)}
        return self._request_ids

    @request_ids.setter
    def request_ids(self, ids: dict[int, str] | None) -> None:
        self._request_ids = ids

    def get_request_id(self, idx: int = 0) -> str | None:
        return self.request_ids.get(idx)

    def get_request_header(self, idx: int, key: str) -> Any:
        processors = self.request_processor
        return processors[idx].get_request_property(key) if processors else None

    def get_all_request_header(self, idx: int) -> Mapping[str, Any]:
        processors = self.request_processor
        return processors[idx].get_request_properties() if processors else {}

    @property
    def metrics(self) -> MetricsStore:
        """Numbers that the handler reports in this call."""
        store = self._metrics
        if store is None:
            self.metrics = store = MetricsStore(self.request_ids, self.model_name)
        return store

    @metrics.setter
    def metrics(self, store: MetricsStore) -> None:
        self._metrics = store
        reported.append(store)

    # --- the answers

    @property
    def is_answer_set(self) -> bool:
        """Whether anything may have been set on the answers: somebody asked for their processors."""
        return self._processors is not None

    def set_response_content_type(self, idx: int, value: str) -> None:
        self.set_response_header(idx, "content-type", value)

    def get_response_content_type(self, idx: int) -> str | None:
        return self.get_response_headers(idx).get("content-type")

    def set_response_header(self, idx: int, key: str, value: str) -> None:
        if processors := self.request_processor:
            processors[idx].add_response_property(key, value)

    def get_response_headers(self, idx: int) -> dict[str, str]:
        return self._processors[idx].get_response_headers() if self._processors else {}

    def set_response_status(self, code: int = 200, phrase: str = "", idx: int = 0) -> None:
        if processors := self.request_processor:
            processors[idx].report_status(code, phrase)

    def set_all_response_status(self, code: int = 200, phrase: str = "") -> None:
        for processor in self.request_processor or ():
            processor.report_status(code, phrase)

    def get_response_status(self, idx: int) -> tuple[int, str]:
        if not self._processors:
            return 200, ""
        processor = self._processors[idx]
        return processor.get_response_status_code(), processor.get_response_status_phrase()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Context) and self.__dict__ == other.__dict__

    __hash__ = None  # type: ignore[assignment]  # as in MMS: equality without a hash


def context_class() -> type[Context]:
    """Return ``Context``; where a real MMS has been imported, as a subclass of its class too.

    So ``isinstance(context, mms.context.Context)`` holds in handlers, whichever they import.
    """
    theirs = getattr(sys.modules.get("mms.context"), "Context", Context)
    return Context if issubclass(Context, theirs) else type("Context", (Context, theirs), {})
