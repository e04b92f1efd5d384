"""What handlers see of a request and say about an answer, under MMS's names."""

from __future__ import annotations

import copy
import http
import json
import re

import pytest

from mmekit.errors import PredictionFailed
from mmekit.worker.context import Context, Request, RequestProcessor
from mmekit.worker.metrics import Dimension, Metric, MetricEncoder, MetricsStore

HEADERS = [
    (b"Content-Type", b"text/csv; charset=utf-8"),
    (b"accept", b"application/json"),
    (b"X-Amzn-SageMaker-Custom-Attributes", b"trace=1"),
    (b"X-Name", b"first"),
    (b"x-name", b"gr\xfc\xdfe"),
]


class _Number:
    """As numpy's integers are."""

    def __index__(self) -> int:
        return 202


def context(*requests: Request) -> Context:
    model = Context("iris", "/opt/ml/models/1/model", {"model": {}}, 2, None)
    return model.for_requests(requests) if requests else model


def test_a_request_shows_its_headers_in_any_case_and_the_last_of_a_name() -> None:
    request = Request(HEADERS, b"1,2", "id-1")
    assert (request.content_type, request.accept) == ("text/csv; charset=utf-8", "application/json")
    assert request.custom_attributes == "trace=1"
    assert request.headers["X-NAME"] == "grüße"
    assert "content-type" in request.headers
    assert request.headers.get("absent") is None
    assert dict(request.headers)["Content-Type"] == "text/csv; charset=utf-8"
    assert len(request.headers) == 5  # with the body's length


def test_the_bodys_length_stands_in_the_headers_however_it_was_sent() -> None:
    chunked = Request([(b"Transfer-Encoding", b"chunked"), (b"X-Own", b"1")], b"1,2")
    assert chunked.headers == {"X-Own": "1", "content-length": "3"}
    assert Request([], b"").headers == {"content-length": "0"}
    assert Request([(b"Content-Length", b"3")], b"1,2").headers == {"Content-Length": "3"}


def test_headers_that_are_not_there_are_none() -> None:
    request = Request([], b"")
    assert (request.content_type, request.accept, request.custom_attributes) == (None, None, None)


def test_the_body_is_not_copied() -> None:
    body = bytearray(b"1,2")
    assert Request([], body).body is body


def test_a_context_has_mmss_attributes() -> None:
    model = context()
    assert (model.model_name, model.manifest) == ("iris", {"model": {}})
    assert model.system_properties["model_dir"] == "/opt/ml/models/1/model"
    assert model.system_properties["gpu_id"] is None
    assert model.system_properties["batch_size"] == 2
    assert model.system_properties["server_name"] == "MMS"


def test_during_the_load_there_are_no_requests_and_setting_things_does_nothing() -> None:
    model = context()
    model.set_response_status(500, "no", 0)
    model.set_response_content_type(0, "text/plain")
    assert model.request_processor is None
    assert model.get_response_status(0) == (200, "")
    assert (model.get_request_header(0, "accept"), model.get_all_request_header(0)) == (None, {})
    assert (model.request_ids, model.get_request_id()) == ({}, None)


def test_each_request_of_a_batch_has_its_own_headers_and_status() -> None:
    batch = context(Request([(b"a", b"1")], b"", "id-1"), Request([(b"a", b"2")], b"", "id-2"))
    batch.set_response_content_type(1, "text/csv")
    batch.set_response_header(1, "X-Note", "second")
    batch.set_response_status(201, "Made", 1)
    assert [batch.get_request_header(index, "A") for index in (0, 1)] == ["1", "2"]
    assert batch.get_response_headers(0) == {}
    assert batch.get_response_headers(1) == {"content-type": "text/csv", "X-Note": "second"}
    assert batch.get_response_content_type(1) == "text/csv"
    assert [batch.get_response_status(index) for index in (0, 1)] == [(200, ""), (201, "Made")]
    assert batch.request_ids == {0: "id-1", 1: "id-2"}
    batch.set_all_response_status(202, "Later")
    assert [batch.get_response_status(index) for index in (0, 1)] == [(202, "Later")] * 2


def test_a_request_processor_has_mmss_methods() -> None:
    (processor,) = context(Request([(b"a", b"1")], b"")).request_processor or []
    assert (processor.get_request_property("a"), dict(processor.get_request_properties())) == (
        "1",
        {"a": "1", "content-length": "0"},
    )
    processor.report_status(404, None)
    processor.add_response_property("k", "v")
    assert (processor.get_response_status_code(), processor.get_response_status_phrase()) == (404, "")
    assert (processor.get_response_header("k"), processor.get_response_headers()) == ("v", {"k": "v"})


@pytest.mark.parametrize(
    ("key", "value", "why"),
    [
        ("X-Note", "a\r\nX-Evil: b", "line breaks, control characters"),
        ("X-Note", "a\nb", "line breaks"),
        ("X-Note", "\0", "control characters"),
        ("X-Note", "日本", "beyond latin-1"),
        ("X-Note", 7, "to int 7; expected a str"),
        ("X-Note", None, "to NoneType None; expected a str"),
        ("X Note", "a", "'X Note', which is not a header's name"),
        ("X-Note\r\n", "a", "which is not a header's name"),
        ("", "a", "which is not a header's name"),
        (3, "a", "a header named 3"),
    ],
)
def test_what_is_no_header_cannot_be_set(key: object, value: object, why: str) -> None:
    processor = RequestProcessor({})
    with pytest.raises(PredictionFailed) as raised:
        processor.add_response_property(key, value)
    assert why in raised.value.message
    assert processor.get_response_headers() == {}


@pytest.mark.parametrize("code", [99, 100, 199, 600, -1, True, "200", 200.0])
def test_what_is_no_status_cannot_be_set(code: object) -> None:
    with pytest.raises(PredictionFailed, match="expected a number from 200 to 599"):
        RequestProcessor({}).report_status(code)


def test_a_phrase_of_several_lines_becomes_one() -> None:
    processor = RequestProcessor({})
    processor.report_status(500, "first\r\nX-Evil: 1\n  日")
    assert processor.get_response_status_phrase() == "first X-Evil: 1 ?"


def test_contexts_compare_by_their_contents() -> None:
    assert context() == context()
    assert context() != Context("other", "/", None, 1, None)


def test_metrics_are_collected_by_call() -> None:
    call = context(Request([], b"", "id-1"))
    call.metrics.add_counter("Rows", 2, 0)
    call.metrics.add_counter("Rows", 3, 0)
    call.metrics.add_time("Parse", 1.5, unit="s")
    call.metrics.add_size("Body", 3, unit="kB")
    call.metrics.add_percent("Full", 50)
    call.metrics.add_error("Bad", 1)
    call.metrics.add_metric("Odd", 1, unit="Parsecs", dimensions=[Dimension("Host", "a")])
    found = [(each.name, each.value, each.unit, each.request_id) for each in call.metrics.store]
    assert found == [
        ("Rows", 5, "Count", "id-1"),
        ("Parse", 1.5, "Seconds", "id-1"),
        ("Body", 3, "Kilobytes", "id-1"),
        ("Full", 50, "Percent", "id-1"),
        ("Bad", 1, "", None),
        ("Odd", 1, "Parsecs", "id-1"),
    ]
    assert call.metrics.store[-2].dimensions == [Dimension("Level", "Error")]
    assert call.metrics.store[-1].dimensions == [
        Dimension("Host", "a"),
        Dimension("ModelName", "iris"),
        Dimension("Level", "Model"),
    ]
    call.begin([Request([], b"", "id-2")])
    assert call.metrics.store == []


def test_unknown_units_are_refused() -> None:
    store = MetricsStore({}, "m")
    with pytest.raises(ValueError, match="'h' is not one of ms, s"):
        store.add_time("t", 1, unit="h")
    with pytest.raises(ValueError, match="'TB' is not one of MB, kB, GB, B"):
        store.add_size("t", 1, unit="TB")


def test_response_headers_are_given_as_a_copy_so_that_none_goes_in_unchecked() -> None:
    call = context(Request([], b""))
    call.set_response_header(0, "X-Note", "a")
    call.get_response_headers(0)["X-Evil"] = "b\r\n"
    assert call.get_response_headers(0) == {"X-Note": "a"}


def test_headers_are_a_dict_that_can_be_copied_and_written_as_json() -> None:
    headers = Request(HEADERS, b"").headers
    assert json.loads(json.dumps(headers)) == dict(headers) == headers.copy()
    assert copy.deepcopy(headers)["content-TYPE"] == headers["Content-Type"]
    with pytest.raises(KeyError):
        headers["absent"]
    assert headers.get("absent", "x") == "x"


def test_a_part_has_an_entry_among_the_headers_unless_a_header_has_its_name() -> None:
    call = context(Request([(b"Accept", b"text/csv")], b""))
    call.begin([Request([(b"Accept", b"text/csv")], b"")], [{"body": "text/csv", "accept": "", "x": ""}])
    assert call.get_all_request_header(0) == {
        "Accept": "text/csv",
        "content-length": "0",
        "body": {"content-type": "text/csv"},
        "x": {"content-type": ""},
    }
    assert call.get_request_header(0, "BODY") == {"content-type": "text/csv"}


def test_handlers_tests_can_make_a_processor_of_a_dict_and_give_it_to_a_context() -> None:
    call = Context("m", "/", {}, 1, None, "1.1.11")
    call.request_ids = {0: "id"}
    call.request_processor = [RequestProcessor({"Content-Type": "text/csv"})]
    assert (call.get_request_header(0, "Content-Type"), call.get_request_id()) == ("text/csv", "id")
    call.set_response_status(201, None, 0)
    assert call.get_response_status(0) == (201, "")
    assert call.metrics.request_ids == {0: "id"}


@pytest.mark.parametrize(("code", "status"), [(None, 200), (http.HTTPStatus.CREATED, 201), (_Number(), 202)])
def test_a_status_may_be_any_whole_number_and_none_is_200(code: object, status: int) -> None:
    processor = RequestProcessor({})
    processor.report_status(code)
    assert processor.get_response_status_code() == status


# --- metrics


def test_a_metric_is_written_as_mms_writes_it() -> None:
    line = str(Metric("Size", 2.5, "MB", [Dimension("ModelName", "m"), Dimension("Level", "Model")], "id-1"))
    head, dimensions, place = line.split("|")
    assert (head, dimensions) == ("Size.Megabytes:2.5", "#ModelName:m,Level:Model")
    assert re.fullmatch(r"#hostname:[^,]+,requestID:id-1,timestamp:\d{10}", place)
    assert "requestID" not in str(Metric("Size", 1, "count", []))


def test_a_metric_can_be_written_as_json() -> None:
    found = json.loads(json.dumps(Metric("a", 1, "ms", [Dimension("d", "v")], "id"), cls=MetricEncoder))
    assert {name: found[name] for name in ("MetricName", "Value", "Unit", "Dimensions", "RequestId")} == {
        "MetricName": "a",
        "Value": 1,
        "Unit": "Milliseconds",
        "Dimensions": [{"Name": "d", "Value": "v"}],
        "RequestId": "id",
    }
    with pytest.raises(TypeError):
        json.dumps(object(), cls=MetricEncoder)


def test_a_metric_of_a_batch_has_all_its_request_ids_and_one_of_a_load_none() -> None:
    batch = context(Request([], b"", "id-1"), Request([], b"", "id-2"))
    batch.metrics.add_metric("all", 1)
    batch.metrics.add_metric("one", 1, 1)
    assert [(each.request_id, each.unit) for each in batch.metrics.store] == [
        ("id-1,id-2", "unit"),
        ("id-2", "unit"),
    ]
    model = context()
    model.metrics.add_metric("load", 1)
    assert model.metrics.store[0].request_id is None


def test_dimensions_of_the_caller_are_kept_for_every_kind_and_his_list_is_not_changed() -> None:
    store = MetricsStore({0: "id"}, "m")
    mine = [Dimension("Host", "a")]
    store.add_counter("n", 1, 0, mine)
    store.add_time("t", 1, 0, "ms", mine)
    store.add_size("s", 1, 0, "B", mine)
    store.add_percent("p", 1, 0, mine)
    store.add_metric("x", 1, 0, "Bananas", mine)
    store.add_error("e", "no", mine)
    assert mine == [Dimension("Host", "a")]
    assert all(each.dimensions[0] == mine[0] for each in store.store)


def test_a_counter_adds_up_by_its_dimensions_and_a_number_is_replaced() -> None:
    store = MetricsStore({0: "id"}, "m")
    for kind in "aba":
        store.add_counter("n", 1, 0, [Dimension("Kind", kind)])
        store.add_time("t", ord(kind), 0)
    assert [(each.name, each.value) for each in store.store] == [("n", 2), ("t", 97), ("n", 1)]
