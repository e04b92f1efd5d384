"""Where a url leads: the store, archives below a private folder, downloads where they are allowed."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from mmekit.archive.store import Folder, ModelStore
from mmekit.errors import DownloadModelError, InvalidModel, MmekitError, ModelNotFound, ServiceUnavailable
from tests.archive.support import FORMATS, MIB, archive_bytes, model_files, tree, written


@contextlib.contextmanager
def opened_store(tmp_path: Path, **options: Any) -> Iterator[ModelStore]:
    """A store in ``store``, unpacking below ``scratch``; nothing is left there in the end."""
    (tmp_path / "store").mkdir(exist_ok=True)
    scratch = tmp_path / "scratch"
    scratch.mkdir(exist_ok=True)
    given = {"root": tmp_path / "store", "allow_urls": False, "max_unpacked_bytes": MIB, "scratch": scratch}
    store = ModelStore(**{**given, **options})
    try:
        yield store
    finally:
        store.close()
        assert list(scratch.iterdir()) == []


def unpacked_below(tmp_path: Path) -> list[str]:
    """Files below the scratch folder, whatever the folders between are called."""
    return sorted(path.name for path in (tmp_path / "scratch").rglob("*") if path.is_file())


def put(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / "store").mkdir(exist_ok=True)
    written(tmp_path / "store", content, name)


# --- the store


@pytest.mark.parametrize("url", ["iris", "/iris", "iris/", "./iris", "//iris"])
def test_a_folder_of_the_store_is_used_where_it_lies_and_never_deleted(tmp_path: Path, url: str) -> None:
    with opened_store(tmp_path) as store:
        (tmp_path / "store" / "iris").mkdir()
        folder = store.open(url)
        assert folder == Folder(str(tmp_path / "store" / "iris"))
        assert not folder.owned
        folder.close()
        assert (tmp_path / "store" / "iris").is_dir()
        assert unpacked_below(tmp_path) == []


def test_a_store_at_the_root_takes_absolute_paths(tmp_path: Path) -> None:
    with opened_store(tmp_path, root=Path("/")) as store:
        assert store.open(str(tmp_path)).path == str(tmp_path)


@pytest.mark.parametrize("url", ["../secret", "a/../../secret", "..", "/../etc", "a/.."])
def test_a_relative_path_is_not_allowed(tmp_path: Path, url: str) -> None:
    (tmp_path / "secret").mkdir()
    with opened_store(tmp_path) as store, pytest.raises(ModelNotFound) as caught:
        store.open(url)
    assert caught.value.message == f"Relative path is not allowed in url: {url}"


def test_two_dots_inside_a_name_are_no_relative_path(tmp_path: Path) -> None:
    with opened_store(tmp_path) as store:
        (tmp_path / "store" / "v1..2").mkdir()
        assert store.open("v1..2").path.endswith("v1..2")


@pytest.mark.parametrize("url", ["nothing", "/etc", "a\0b", "a" * 300, "a/" * 3000])
def test_what_is_not_there_is_not_found(tmp_path: Path, url: str) -> None:
    with opened_store(tmp_path) as store, pytest.raises(ModelNotFound) as caught:
        store.open(url)
    assert caught.value.message.startswith(f"Model not found in model store: {url[:400]}")


@pytest.mark.parametrize("url", ["s3://bucket/model.tar.gz", "file:///etc/passwd", "FTP://host/x"])
def test_other_schemes_are_not_found(tmp_path: Path, url: str) -> None:
    with opened_store(tmp_path, allow_urls=True) as store, pytest.raises(ModelNotFound) as caught:
        store.open(url)
    assert caught.value.message.startswith(f"Model not found in model store: {url}. Expected a path below")


def test_without_a_store_no_path_is_found(tmp_path: Path) -> None:
    with opened_store(tmp_path, root=None) as store, pytest.raises(ModelNotFound) as caught:
        store.open("iris")
    assert caught.value.message.startswith("Model store has not been configured.")


# --- archives


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("name", ["model.mar", "model.model", "model.tar.gz", "model"])
def test_an_archive_is_known_by_its_content_whatever_its_name(tmp_path: Path, form: str, name: str) -> None:
    files = model_files()
    put(tmp_path, name, archive_bytes(form, files.items()))
    with opened_store(tmp_path) as store:
        folder = store.open(name)
        assert folder.owned
        assert tree(Path(folder.path)) == files
        assert tree(tmp_path / "store").keys() == {name}
        folder.close()
        folder.close()
        assert unpacked_below(tmp_path) == []


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("manifest", ["MAR-INF/MANIFEST.json", "MANIFEST.json"])
def test_one_top_folder_with_a_manifest_is_the_model(tmp_path: Path, form: str, manifest: str) -> None:
    put(tmp_path, "m", archive_bytes(form, [("iris/service.py", b""), (f"iris/{manifest}", b"{}")]))
    with opened_store(tmp_path) as store:
        folder = store.open("m")
        assert tree(Path(folder.path)).keys() == {"service.py", manifest}
        folder.close()
        assert unpacked_below(tmp_path) == []


@pytest.mark.parametrize(
    "files", [["iris/model.ubj"], ["iris/MAR-INF/MANIFEST.json", "other"], ["MAR-INF/MANIFEST.json"]]
)
def test_other_top_folders_are_part_of_the_model(tmp_path: Path, files: list[str]) -> None:
    put(tmp_path, "m", archive_bytes("zip", [(name, b"{}") for name in files]))
    with opened_store(tmp_path) as store:
        assert tree(Path(store.open("m").path)).keys() == set(files)


@pytest.mark.parametrize("form", FORMATS)
def test_an_archive_that_is_refused_is_named_by_its_url_and_leaves_nothing(tmp_path: Path, form: str) -> None:
    put(tmp_path, "m", archive_bytes(form, [("good", b"x"), ("../bad", b"x")]))
    with opened_store(tmp_path) as store:
        with pytest.raises(InvalidModel) as caught:
            store.open("/m")
        assert caught.value.message.startswith("The archive /m cannot be used: its member ")
        assert str(tmp_path) not in caught.value.message
        assert unpacked_below(tmp_path) == []
        assert not (tmp_path / "bad").exists()


def test_the_same_archive_opened_by_many_at_once_gives_each_a_folder(tmp_path: Path) -> None:
    put(tmp_path, "m", archive_bytes("tar.gz", model_files().items()))
    with opened_store(tmp_path) as store, ThreadPoolExecutor(16) as pool:
        folders = list(pool.map(store.open, ["m"] * 48))
        assert len({folder.path for folder in folders}) == 48
        folders[0].close()
        assert all(tree(Path(folder.path)) == model_files() for folder in folders[1:])


def test_what_is_unpacked_while_the_store_closes_is_deleted_too(tmp_path: Path) -> None:
    put(tmp_path, "m", archive_bytes("zip", [(f"{number}", bytes(1000)) for number in range(300)]))
    with opened_store(tmp_path) as store, ThreadPoolExecutor(4) as pool:
        opening = [pool.submit(store.open, "m") for _ in range(12)]
        opening[0].result()
        store.close()
        for future in opening:
            with contextlib.suppress(MmekitError):
                future.result()
        assert list((tmp_path / "scratch").iterdir()) == []
        with pytest.raises(ServiceUnavailable):
            store.open("m")


_IN_TEMP = """
import pathlib, sys
from mmekit.archive.store import ModelStore
store = ModelStore(pathlib.Path("/"), False, 2**20)
print(store.open(sys.argv[1]).path)
store.close()
"""


@pytest.mark.parametrize("variable", ["TEMP", "TMPDIR"])
def test_archives_are_unpacked_below_the_temporary_folder_that_the_environment_names(
    tmp_path: Path, variable: str
) -> None:
    archive = written(tmp_path, archive_bytes("zip", model_files().items()))
    (tmp_path / "temp").mkdir()
    environ = {k: v for k, v in os.environ.items() if k not in ("TEMP", "TMP", "TMPDIR")}
    done = subprocess.run(
        [sys.executable, "-c", _IN_TEMP, archive],
        env={**environ, variable: str(tmp_path / "temp")},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout.startswith(f"{tmp_path}/temp/mmekit-models-"), done.stderr
    assert list((tmp_path / "temp").iterdir()) == []


def test_without_a_folder_to_unpack_to_the_error_says_what_to_set(tmp_path: Path) -> None:
    put(tmp_path, "m", archive_bytes("zip", model_files().items()))
    store = ModelStore(tmp_path / "store", False, MIB, tmp_path / "gone")
    with pytest.raises(
        MmekitError, match=r"^Failed to save model: .*No such file or directory.*TMPDIR"
    ) as caught:
        store.open("m")
    assert (caught.value.status, caught.value.type) == (500, "InternalServerException")


def test_a_read_only_container_without_a_temporary_folder_says_what_to_set(tmp_path: Path) -> None:
    archive = written(tmp_path, archive_bytes("zip", model_files().items()))
    script = 'mount --rbind -r /tmp /tmp && mount --rbind -r /var/tmp /var/tmp && cd /proc && exec "$@"'
    command = ["unshare", "-rm", "sh", "-c", script, "sh", sys.executable, "-c", _IN_TEMP, archive]
    environ = {k: v for k, v in os.environ.items() if k not in ("TEMP", "TMP", "TMPDIR")}
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60)
    if done.stderr.startswith(("unshare:", "mount:")):
        pytest.skip(f"this system lets nobody mount a folder read-only: {done.stderr}")
    assert f"MmekitError: Failed to save model: {archive}: No usable temporary directory found" in done.stderr
    assert "TMPDIR or TEMP names another." in done.stderr


def test_a_pipe_is_no_archive(tmp_path: Path) -> None:
    with opened_store(tmp_path) as store:
        os.mkfifo(tmp_path / "store" / "pipe")
        with pytest.raises(InvalidModel, match="it is no file"):
            store.open("pipe")


# --- downloads


class _Site(BaseHTTPRequestHandler):
    """Answers by the path; ``release`` lets the ones that stand still end."""

    protocol_version = "HTTP/1.1"
    release: threading.Event
    archive: bytes

    def do_GET(self) -> None:
        getattr(self, "_" + self.path.strip("/").split("?")[0].replace(".", "_"))()

    def _send(self, status: int, body: bytes, length: int | None = None, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)

    def _model_mar(self) -> None:
        self._send(200, self.archive)

    def _chunked(self) -> None:
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.write(b"%x\r\n%s\r\n0\r\n\r\n" % (len(self.archive), self.archive))

    def _gone(self) -> None:
        self._send(404, b"")

    def _empty(self) -> None:
        self.send_response(204)
        self.end_headers()

    def _page(self) -> None:
        self._send(200, b"<html>")

    def _moved(self) -> None:
        self._send(302, b"", Location="/model.mar")

    def _moved_endlessly(self) -> None:
        self.send_response(int(self.path.rpartition("?")[2]))
        self.send_header("Location", "/model.mar")
        self.end_headers()
        self._drip()

    def _to_no_port(self) -> None:
        self._send(302, b"", Location="http://127.0.0.1:99999/model.mar")

    def _to_file(self) -> None:
        self._send(302, b"", Location="file:///etc/passwd")

    def _to_ftp(self) -> None:
        self._send(302, b"", Location="ftp://127.0.0.1/x")

    def _in_a_circle(self) -> None:
        self._send(302, b"", Location="/in_a_circle")

    def _short(self) -> None:
        self._send(200, self.archive[:50], len(self.archive))
        self.close_connection = True

    def _large(self) -> None:
        self._send(200, b"", 10 * MIB)
        self.close_connection = True

    def _endless(self) -> None:
        self.send_response(200)
        self.end_headers()
        with contextlib.suppress(OSError):
            for _ in range(1000):
                self.wfile.write(bytes(MIB))
        self.close_connection = True

    def _stalls(self) -> None:
        self._send(200, b"PK", 1000)
        self.release.wait(60)
        self.close_connection = True

    def _silent(self) -> None:
        self.release.wait(60)
        self.close_connection = True

    def _head_in_drops(self) -> None:
        self.wfile.write(b"HTTP/1.1 200 OK\r\nx: ")
        self._drip()

    def _body_in_drops(self) -> None:
        self.send_response(200)
        self.end_headers()
        self._drip()

    def _drip(self) -> None:
        """Send a byte now and then: each begins a socket's timeout anew."""
        self.close_connection = True
        with contextlib.suppress(OSError):
            while not self.release.wait(0.02):
                self.wfile.write(b"x")

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def site() -> Iterator[str]:
    archive = archive_bytes("zip", model_files().items())
    handler = type("Site", (_Site,), {"release": threading.Event(), "archive": archive})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        handler.release.set()
        server.shutdown()
        thread.join()
        server.server_close()


def failed(tmp_path: Path, url: str, **options: Any) -> MmekitError:
    """Open a url, which must fail and leave nothing; return the error."""
    with opened_store(tmp_path, **{"allow_urls": True, **options}) as store:
        with pytest.raises(MmekitError) as caught:
            store.open(url)
        assert unpacked_below(tmp_path) == []
    return caught.value


@pytest.mark.parametrize("path", ["/model.mar", "/chunked", "/moved", "/model.mar?signature=1"])
def test_a_model_is_downloaded_where_that_is_allowed(tmp_path: Path, site: str, path: str) -> None:
    with opened_store(tmp_path, allow_urls=True, root=None) as store:
        folder = store.open(site + path)
        assert tree(Path(folder.path)) == model_files()
        assert unpacked_below(tmp_path) == ["MANIFEST.json", "service.py"]
        folder.close()
        assert unpacked_below(tmp_path) == []


@pytest.mark.parametrize("scheme", ["http", "https", "HTTP"])
def test_downloads_are_off_unless_allowed(tmp_path: Path, scheme: str) -> None:
    error = failed(tmp_path, f"{scheme}://127.0.0.1:9/model.mar", allow_urls=False)
    assert (error.status, error.type) == (400, "DownloadModelException")
    assert error.message.startswith(f"Failed to download model from: {scheme}://127.0.0.1:9/model.mar")
    assert "MMEKIT_ALLOW_MODEL_URLS" in error.message


#: Python 3.10 does not follow 308.
_REDIRECTS = (301, 302, 303, 307, *((308,) if sys.version_info >= (3, 11) else ()))


@pytest.mark.parametrize("status", _REDIRECTS)
def test_the_body_of_a_redirect_is_not_read(tmp_path: Path, site: str, status: int) -> None:
    with opened_store(tmp_path, allow_urls=True, download_timeout_s=10) as store:
        folder = store.open(f"{site}/moved_endlessly?{status}")
        assert tree(Path(folder.path)) == model_files()


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/gone", ", code: 404"),
        ("/empty", ", code: 204"),
        ("/to_file", ", code: 302"),
        ("/to_ftp", ", code: 302"),
        ("/in_a_circle", ", code: 302"),
        ("/short", " (the connection ended after 50 of"),
        ("/large", " (it has more than 1048576 bytes"),
        ("/endless", " (it has more than 1048576 bytes"),
    ],
)
def test_a_download_that_fails_says_why(tmp_path: Path, site: str, path: str, reason: str) -> None:
    error = failed(tmp_path, site + path)
    assert isinstance(error, DownloadModelError)
    assert error.message.startswith(f"Failed to download model from: {site}{path}{reason}")


@pytest.mark.parametrize("path", ["/stalls", "/silent"])
def test_a_download_that_stands_still_times_out(tmp_path: Path, site: str, path: str) -> None:
    error = failed(tmp_path, site + path, silence_s=0.2)
    assert isinstance(error, DownloadModelError)
    assert error.message == f"Download model timeout: {site}{path}"


@pytest.mark.parametrize("path", ["/head_in_drops", "/body_in_drops", "/stalls"])
def test_a_download_ends_at_its_deadline_whatever_still_comes(tmp_path: Path, site: str, path: str) -> None:
    error = failed(tmp_path, site + path, download_timeout_s=0.3)
    assert isinstance(error, DownloadModelError)
    assert error.message == f"Download model timeout: {site}{path}"


def test_a_server_that_is_not_there_is_a_failed_download(tmp_path: Path) -> None:
    error = failed(tmp_path, "http://127.0.0.1:1/model.mar")
    assert error.message.startswith("Failed to download model from: http://127.0.0.1:1/model.mar (")


@pytest.mark.parametrize(
    "url", ["http://", "http://[1/x", "http://host:port/x", "http://127.0.0.1/a b", "https:///x"]
)
def test_a_url_that_is_none_is_refused(tmp_path: Path, url: str) -> None:
    error = failed(tmp_path, url)
    assert error.status in (400, 404)
    assert error.message.startswith(("Invalid model url: ", "Failed to download model from: "))


@pytest.mark.parametrize("port", [65536, 99999, 10**30])
def test_a_port_that_is_none_is_named(tmp_path: Path, port: int) -> None:
    url = f"http://127.0.0.1:{port}/x"
    error = failed(tmp_path, url)
    assert isinstance(error, ModelNotFound)
    assert error.message == f"Invalid model url: '{url}' (Port out of range 0-65535)."


def test_a_redirect_to_a_port_that_is_none_is_refused(tmp_path: Path, site: str) -> None:
    error = failed(tmp_path, site + "/to_no_port")
    assert error.message == f"Invalid model url: '{site}/to_no_port' (Port out of range 0-65535)."


def test_a_page_that_is_no_archive_is_refused(tmp_path: Path, site: str) -> None:
    error = failed(tmp_path, site + "/page")
    assert isinstance(error, InvalidModel)
    assert error.message.startswith(f"The archive {site}/page cannot be used: ")
    assert "starts with b'<html>'" in error.message
