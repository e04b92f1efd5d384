"""Archives at the border: a real server loads, refuses and forgets them."""

from __future__ import annotations

import contextlib
import functools
import json
import signal
import subprocess
import threading
import time
import uuid
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.archive.support import FORMATS, MIB, archive_bytes, ended, model_files, tar_bytes, tar_info, tree
from tests.support.server import COMMAND, Server, until

JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model store and the server's folder for temporary files."""
    path = tmp_path_factory.mktemp("archives")
    (path / "store").mkdir()
    (path / "temp").mkdir()
    return path


def environ(room: Path, **more: str) -> dict[str, str]:
    return {"MMEKIT_MODEL_STORE": str(room / "store"), "TMPDIR": str(room / "temp"), **more}


@pytest.fixture(scope="module")
def server(room: Path) -> Iterator[Server]:
    with Server(**environ(room, MMEKIT_MAX_UNPACKED_BYTES=str(2 * MIB))) as started:
        yield started
    assert list((room / "temp").iterdir()) == []


def put(room: Path, name: str, content: bytes) -> None:
    (room / "store" / name).write_bytes(content)


def unpacked(room: Path) -> list[str]:
    return [name for name in tree(room / "temp") if not name.endswith(".pyc")]


@pytest.mark.parametrize("form", FORMATS)
def test_an_archive_of_the_store_is_loaded_invoked_and_forgotten(
    server: Server, room: Path, form: str
) -> None:
    put(room, f"echo.{form}", archive_bytes(form, model_files().items()))
    answer = server.load("echo", f"echo.{form}")
    assert answer.status == 200, answer.body
    assert server.invoke("echo", b"\0hello").body == b"\0hello"
    assert server.get("/models").json["models"] == [{"modelName": "echo", "modelUrl": f"echo.{form}"}]
    assert len(unpacked(room)) == 2
    assert server.unload("echo").status == 200
    assert unpacked(room) == []
    assert (room / "store" / f"echo.{form}").exists()


@pytest.mark.parametrize("form", ["default", "tgz", "no-archive"])
def test_what_archive_pack_makes_is_loaded_under_the_manifests_name(
    server: Server, room: Path, tmp_path: Path, form: str
) -> None:
    name = f"packed-{form}"
    for file, content in model_files().items():
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_bytes(content)
    command = [COMMAND, "archive", "pack", "--model-name", name, "--model-path", tmp_path]
    command += ["--handler", "service.py:handle", "--export-path", room / "store", "--archive-format", form]
    assert subprocess.run(command, capture_output=True, timeout=60).returncode == 0
    url = name + {"default": ".mar", "tgz": ".tar.gz", "no-archive": ""}[form]
    answer = server.request("POST", f"/models?url={url}")
    assert answer.status == 200, answer.body
    assert server.invoke(name, b"hello").body == b"hello"
    assert server.unload(name).status == 200


def test_many_archives_are_unpacked_at_once(server: Server, room: Path) -> None:
    put(room, "many.mar", archive_bytes("zip", model_files().items()))
    loads = [server.later(server.load, f"many-{number}", "many.mar") for number in range(6)]
    assert [load.result().status for load in loads] == [200] * 6
    assert [server.invoke(f"many-{number}", b"x").body for number in range(6)] == [b"x"] * 6
    unloads = [server.later(server.unload, f"many-{number}") for number in range(6)]
    assert [unload.result().status for unload in unloads] == [200] * 6
    assert unpacked(room) == []


#: No other run and no other program has made it.
ESCAPED = Path("/tmp", f"escaped-from-archive-{uuid.uuid4().hex}")

HOSTILE = {
    "escapes.mar": archive_bytes("zip", [*model_files().items(), ("../escaped", b"x")]),
    "escapes.tar": archive_bytes("tar", [*model_files().items(), ("../../escaped", b"x")]),
    "absolute.tar.gz": archive_bytes("tar.gz", [*model_files().items(), (str(ESCAPED), b"x")]),
    "link.tar": ended(tar_bytes([*model_files().items(), (tar_info("passwd", b"2"), b"")])),
    "hardlink.tar": ended(tar_bytes([*model_files().items(), (tar_info("passwd", b"1"), b"")])),
    "device.tar": ended(tar_bytes([*model_files().items(), (tar_info("null", b"3"), b"")])),
    "bomb.mar": archive_bytes("zip", [*model_files().items(), ("zeros", bytes(3 * MIB))]),
    "bomb.tar.gz": archive_bytes("tar.gz", [*model_files().items(), ("zeros", bytes(3 * MIB))]),
    "cut.mar": archive_bytes("zip", model_files().items())[:-10],
    "cut.tar.gz": archive_bytes("tar.gz", model_files().items())[:-10],
    "text.mar": b"no archive",
    "empty.mar": b"",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_an_archive_not_to_be_trusted_is_refused_and_nothing_is_written(
    server: Server, room: Path, name: str
) -> None:
    put(room, name, HOSTILE[name])
    before = tree(room / "store").keys()
    answer = server.load("hostile", name)
    assert (answer.status, answer.json["type"]) == (400, "InvalidModelException"), answer.body
    assert name in answer.message
    assert "Nothing was unpacked." in answer.message
    assert unpacked(room) == []
    assert tree(room / "store").keys() == before
    assert not (room / "escaped").exists()
    assert not ESCAPED.exists()
    assert "hostile" not in server.models()


@pytest.mark.parametrize(
    ("manifest", "status", "text"),
    [
        (b"{", 400, "Failed to parse MAR-INF/MANIFEST.json"),
        (b'{"runtime": "java"}', 400, "Runtime is not defined or invalid."),
        (b'{"engine": {"engineVersion": "1"}}', 400, "engineName is required in <engine>."),
        (b'{"model": {"handler": "gone.py:handle"}}', 500, "gone.py"),
        (b'{"model": {"handler": "gone.py:handle"}}', 500, "searched in bad.mar."),
        (b'{"model": null}', 400, "Model handler is not defined. bad.mar has: MAR-INF/, service.py."),
    ],
)
def test_an_archive_that_cannot_be_loaded_is_deleted_again(
    server: Server, room: Path, manifest: bytes, status: int, text: str
) -> None:
    put(room, "bad.mar", archive_bytes("zip", (model_files() | {"MAR-INF/MANIFEST.json": manifest}).items()))
    answer = server.load("bad", "bad.mar")
    assert answer.status == status, answer.body
    assert text in answer.message
    assert str(room) not in answer.message
    assert unpacked(room) == []


@pytest.mark.parametrize(
    "manifest", ['{"model": null}', '{"handler": "service.py:handle"}', '{"model": {"modelName": ""}}']
)
def test_without_a_name_the_manifest_that_has_none_is_told(server: Server, room: Path, manifest: str) -> None:
    put(room, "nameless.mar", archive_bytes("zip", [("MAR-INF/MANIFEST.json", manifest.encode())]))
    answer = server.request("POST", "/models?url=nameless.mar")
    assert (answer.status, answer.json["type"]) == (400, "InvalidModelException")
    assert answer.message.startswith(
        "Model name is not defined. Expected the parameter model_name, or modelName"
    )
    assert answer.message.endswith(f"of nameless.mar, found {manifest}.")


@pytest.mark.parametrize(
    ("url", "status", "kind", "text"),
    [
        ("../outside", 404, "ModelNotFoundException", "Relative path is not allowed in url: ../outside"),
        ("gone.mar", 404, "ModelNotFoundException", "Model not found in model store: gone.mar"),
        (
            "s3://bucket/x.mar",
            404,
            "ModelNotFoundException",
            "Model not found in model store: s3://bucket/x.mar",
        ),
        ("http://127.0.0.1:9/x.mar", 400, "DownloadModelException", "MMEKIT_ALLOW_MODEL_URLS=true"),
    ],
)
def test_a_url_that_leads_nowhere_is_refused_in_mmss_words(
    server: Server, url: str, status: int, kind: str, text: str
) -> None:
    answer = server.load("nowhere", url)
    assert (answer.status, answer.json["type"]) == (status, kind)
    assert text in answer.message


def test_pings_are_answered_while_a_large_archive_is_unpacked(server: Server, room: Path) -> None:
    files = model_files() | {f"data/{number}": bytes(500) for number in range(3000)}
    put(room, "large.tar.gz", archive_bytes("tar.gz", files.items()))
    load = server.later(server.load, "large", "large.tar.gz")
    while not load.done():
        assert server.get("/ping").status == 200
    assert load.result().status == 200, load.result().body
    assert server.unload("large").status == 200


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


def test_a_url_is_downloaded_where_that_is_allowed(room: Path) -> None:
    put(room, "remote.mar", archive_bytes("zip", model_files().items()))
    site = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Quiet, directory=str(room / "store")))
    thread = threading.Thread(target=site.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        url = f"http://127.0.0.1:{site.server_address[1]}"
        with Server(**environ(room, MMEKIT_ALLOW_MODEL_URLS="true")) as server:
            answer = server.request("POST", "/models", json.dumps({"url": f"{url}/remote.mar"}), JSON)
            assert answer.status == 200, answer.body
            assert server.invoke("echo", b"hello").body == b"hello"
            assert server.get("/models/echo").json["modelUrl"] == f"{url}/remote.mar"
            answer = server.load("gone", f"{url}/gone.mar")
            assert (answer.status, answer.json["type"]) == (400, "DownloadModelException")
            assert answer.message == f"Failed to download model from: {url}/gone.mar, code: 404"
    finally:
        site.shutdown()
        thread.join()
        site.server_close()


class _Endless(_Quiet):
    """Answers with an archive that comes byte by byte and never ends."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "1000000")
        self.end_headers()
        with contextlib.suppress(OSError):
            while True:
                self.wfile.write(b"x")
                time.sleep(0.05)


@pytest.fixture
def endless() -> Iterator[str]:
    """The address of a site whose downloads never end."""
    site = ThreadingHTTPServer(("127.0.0.1", 0), _Endless)
    site.daemon_threads = True
    thread = threading.Thread(target=site.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{site.server_address[1]}"
    site.shutdown()
    thread.join()
    site.server_close()


def _begun(room: Path) -> int:
    return sum(name.endswith("/archive") for name in unpacked(room))


def test_slow_downloads_hold_neither_other_loads_nor_the_stop(tmp_path: Path, endless: str) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "temp").mkdir()
    put(tmp_path, "echo.mar", archive_bytes("zip", model_files().items()))
    more = {"MMEKIT_ALLOW_MODEL_URLS": "true", "MMEKIT_STOP_TIMEOUT_SECONDS": "0.2"}
    with Server(**environ(tmp_path, **more)) as server:
        downloads = [server.later(server.load, f"d{i}", f"{endless}/d{i}.mar") for i in range(40)]
        until(lambda: _begun(tmp_path) == 16, what="as many downloads as run at once")
        assert server.load("echo", "echo.mar", 30).status == 200
        assert server.get("/metrics").status == 200
        assert server.unload("echo").status == 200
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
        assert all(download.exception() or download.result().status == 503 for download in downloads)
    assert list((tmp_path / "temp").iterdir()) == []


def test_a_download_ends_at_the_deadline_of_loads_however_steadily_it_comes(
    tmp_path: Path, endless: str
) -> None:
    (tmp_path / "temp").mkdir()
    more = {"MMEKIT_ALLOW_MODEL_URLS": "true", "MMEKIT_LOAD_TIMEOUT_SECONDS": "1"}
    with Server(**environ(tmp_path, **more)) as server:
        answer = server.load("m", f"{endless}/m.mar")
        assert (answer.status, answer.json["type"]) == (400, "DownloadModelException")
        assert answer.message == f"Download model timeout: {endless}/m.mar"
        assert unpacked(tmp_path) == []


def test_all_models_of_the_store_are_there_at_the_start_and_a_broken_one_is_a_warning(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "temp").mkdir()
    put(tmp_path, "one.mar", archive_bytes("zip", model_files("first").items()))
    put(tmp_path, "two.tar.gz", archive_bytes("tar.gz", model_files("second").items()))
    put(tmp_path, "broken.mar", b"PK\3\4")
    (tmp_path / "store/notes.txt").write_text("no model")
    with Server(**environ(tmp_path, MMEKIT_LOAD_MODELS="ALL")) as server:
        assert server.models() == ["first", "second"]
        assert server.invoke("second", b"x").body == b"x"
        until(lambda: server.logged("broken.mar"), what="the warning")
    assert list((tmp_path / "temp").iterdir()) == []


LEGACY = {
    "MANIFEST.json": json.dumps(
        {
            "Engine": {"MXNet": 0.12},
            "Model": {"Model-Name": "old", "Service": "service.py", "Signature": "signature.json"},
        }
    ).encode(),
    "signature.json": b'{"input_type": "application/json", "inputs": [{"data_name": "data"}], "outputs": []}',
    "service.py": b"""
from mms.model_service.model_service import SingleNodeService

class Doubles(SingleNodeService):
    def _preprocess(self, data):
        return data
    def _inference(self, data):
        return [value * 2 for value in data[0]]
    def _postprocess(self, data):
        return [{"doubled": data}]
""",
}


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("above", ["", "squeezenet/"])
def test_an_archive_made_for_mms_04_is_served(server: Server, room: Path, form: str, above: str) -> None:
    put(room, "old.model", archive_bytes(form, [(above + name, content) for name, content in LEGACY.items()]))
    answer = server.request("POST", "/models?url=old.model")
    assert answer.status == 200, answer.body
    assert server.get("/models/old").json["engine"] == "MXNet"
    answer = server.invoke("old", "[1, 2]", "application/json")
    assert (answer.status, answer.json) == (200, {"doubled": [2, 4]})
    assert server.unload("old").status == 200
    assert unpacked(room) == []


MANIFEST_SHOWN = """
def handle(data, context):
    return None if data is None else [context.manifest["userData"]]
"""


def test_a_manifest_may_hold_any_json_and_reaches_the_handler(server: Server, tmp_path: Path) -> None:
    data = {"id": 123456789012345678901234567890, "half": "\ud800", "big": 1e300}
    model = {"modelName": "any", "handler": "service:handle"}
    (tmp_path / "MAR-INF").mkdir()
    (tmp_path / "MAR-INF" / "MANIFEST.json").write_text(
        json.dumps({"runtime": "python", "model": model, "userData": data})
    )
    (tmp_path / "service.py").write_text(MANIFEST_SHOWN)
    with Server() as plain:
        assert plain.load("any", tmp_path).status == 200
        assert plain.invoke("any").json == data


@pytest.mark.parametrize("key", ["modelName", "handler", "modelVersion"])
def test_half_a_character_in_what_a_manifest_names_is_refused(server: Server, room: Path, key: str) -> None:
    manifest = {"runtime": "python", "model": {"modelName": "m", "handler": "service:handle", key: "\ud800"}}
    put(room, "half.zip", archive_bytes("zip", [("MAR-INF/MANIFEST.json", json.dumps(manifest).encode())]))
    answer = server.load("half", "half.zip")
    assert (answer.status, answer.json["type"]) == (400, "InvalidModelException")
    assert f'{key}" has a lone surrogate' in answer.message


def test_what_a_killed_server_unpacked_is_deleted_by_the_next(room: Path, tmp_path: Path) -> None:
    put(room, "left.zip", archive_bytes("zip", model_files().items()))
    killed = Server(**environ(room, TMPDIR=str(tmp_path))).start()
    assert killed.load("left", "left.zip").status == 200
    (left,) = tmp_path.glob("mmekit-models-*")
    with Server(**environ(room, TMPDIR=str(tmp_path))) as beside:
        assert beside.load("beside", "left.zip").status == 200
        assert left.exists()  # its server lives
    assert killed.process
    killed.process.kill()
    killed.close()
    with Server(**environ(room, TMPDIR=str(tmp_path))) as next_one:
        assert next_one.load("next", "left.zip").status == 200
        assert not left.exists()
    assert not list(tmp_path.glob("mmekit-models-*"))
