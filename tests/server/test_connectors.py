"""Where a server listens: one port or two, https, Unix sockets, in any mix; what is said when it cannot."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import ssl
import subprocess
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import PrivateFormat

from tests.support.keys import Identity, identity
from tests.support.server import COMMAND, Server, image_environ, plain_model, until
from tests.support.wire import Reply, request, talk

PING = request("GET", "/ping")


@pytest.fixture(scope="module")
def mine() -> Identity:
    return identity()


@pytest.fixture(scope="module")
def https(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with one https port and a model m."""
    folder = tmp_path_factory.mktemp("https")
    key, certificate = identity("rsa").write(folder)
    environ = image_environ(
        MMEKIT_INFERENCE_ADDRESS="https://127.0.0.1:0",
        MMEKIT_PRIVATE_KEY_FILE=str(key),
        MMEKIT_CERTIFICATE_FILE=str(certificate),
        SAGEMAKER_MAX_REQUEST_SIZE="100000",
    )
    with Server(**environ) as server:
        assert server.load("m", plain_model(folder)).status == 200
        yield server


def refused(*options: str, **environ: str) -> tuple[int, str]:
    """Start a server that cannot start; return its exit code and the last line it says."""
    server = Server(*options, **environ)
    done = subprocess.run(
        [COMMAND, "serve", *options],
        env=server.environ, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert "Traceback" not in done.stderr
    return done.returncode, done.stderr.splitlines()[-1]


def one(address: str, sent: bytes, method: str = "GET") -> Reply:
    return talk(address, sent, [method])[0]


def tls_client(server: Server, context: ssl.SSLContext | None = None) -> ssl.SSLSocket:
    if context is None:
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    plain = socket.create_connection(("127.0.0.1", server.port), 20)
    try:
        return context.wrap_socket(plain, server_hostname="127.0.0.1")
    except BaseException:
        plain.close()
        raise


# --- one port and two ------------------------------------------------------------------------------------


def test_two_addresses_divide_the_routes(tmp_path: Path) -> None:
    environ = image_environ(
        MMEKIT_INFERENCE_ADDRESS="http://127.0.0.1:0", MMEKIT_MANAGEMENT_ADDRESS="http://127.0.0.2:0"
    )
    with Server(**environ) as server:
        assert server.addresses["inference"].startswith("http://127.0.0.1:")
        assert server.addresses["management"].startswith("http://127.0.0.2:")
        assert server.load("m", plain_model(tmp_path)).status == 200
        assert server.models() == ["m"]
        assert server.invoke("m", "echo hello").text == "hello"
        for path, there in (("/ping", "inference"), ("/models", "management"), ("/models/m", "management")):
            for connector in ("inference", "management"):
                answer = server.request("GET", path, on=connector)
                assert answer.status == (200 if connector == there else 404), (path, connector)
        assert server.request("POST", "/models/m/invoke", "echo x", on="management").status == 404


def test_equal_addresses_are_one_port_with_all_routes(tmp_path: Path) -> None:
    path = f"unix:{tmp_path}/mmekit.sock"
    with Server(MMEKIT_INFERENCE_ADDRESS=path, MMEKIT_MANAGEMENT_ADDRESS=path) as server:
        assert server.addresses == {"inference": path, "management": path}
        assert server.get("/ping").status == 200
        assert server.get("/models").status == 200


def test_the_connectors_may_be_of_any_kind_each(tmp_path: Path) -> None:
    environ = image_environ(
        MMEKIT_INFERENCE_ADDRESS="https://127.0.0.1:0", MMEKIT_MANAGEMENT_ADDRESS=f"unix:{tmp_path}/m.sock"
    )
    with Server(**environ) as server:
        assert server.load("m", plain_model(tmp_path)).status == 200
        assert server.invoke("m", "echo hello").text == "hello"
        assert server.told(f"Listening on unix:{tmp_path}/m.sock for management.")
        assert server.told(f"Listening on https://127.0.0.1:{server.port} for inference.")


def test_two_connectors_on_one_port_are_refused(tmp_path: Path) -> None:
    with socket.socket() as kept:
        # The kernel gives this port to nobody; those who ask for it may listen there, as this one does not.
        kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        kept.bind(("127.0.0.1", 0))
        port = kept.getsockname()[1]
        code, said = refused(
            MMEKIT_INFERENCE_ADDRESS=f"http://127.0.0.1:{port}",
            MMEKIT_MANAGEMENT_ADDRESS=f"https://127.0.0.1:{port}",
        )
    assert code == 1
    assert said == (
        f"mmekit: The server cannot listen on https://127.0.0.1:{port} (MMEKIT_MANAGEMENT_ADDRESS): "
        f"Address already in use."
    )


@pytest.mark.parametrize("address", ["http://no-such-host.invalid:0", f"https://{'x' * 80}:0"])
def test_a_host_that_nobody_knows_is_said(address: str) -> None:
    code, said = refused(MMEKIT_INFERENCE_ADDRESS=address)
    assert code == 1
    assert said.startswith(f"mmekit: The server cannot listen on {address} (MMEKIT_INFERENCE_ADDRESS): ")


def test_when_one_address_cannot_be_had_nothing_is_left_of_the_other(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        code, said = refused(
            MMEKIT_INFERENCE_ADDRESS=f"unix:{tmp_path}/i.sock",
            MMEKIT_MANAGEMENT_ADDRESS=f"http://127.0.0.1:{taken.getsockname()[1]}",
        )
    assert (code, "MMEKIT_MANAGEMENT_ADDRESS" in said) == (1, True)
    assert not list(tmp_path.iterdir())


# --- https: keys and certificates ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "form"),
    [
        ("rsa", PrivateFormat.PKCS8),
        ("rsa", PrivateFormat.TraditionalOpenSSL),
        ("ec", PrivateFormat.PKCS8),
        ("ec", PrivateFormat.TraditionalOpenSSL),
    ],
)
def test_pem_files_are_what_clients_verify(tmp_path: Path, kind: str, form: PrivateFormat) -> None:
    key, certificate = identity(kind).write(tmp_path, form)
    environ = {"MMEKIT_PRIVATE_KEY_FILE": str(key), "MMEKIT_CERTIFICATE_FILE": str(certificate)}
    with Server(MMEKIT_INFERENCE_ADDRESS="https://127.0.0.1:0", **environ) as server:
        client = tls_client(server, ssl.create_default_context(cafile=certificate))
        assert client.version() == "TLSv1.3"
        client.close()


@pytest.mark.parametrize("password", ["changeit", "p ä$$"])
def test_a_pkcs12_keystore_is_what_clients_verify(tmp_path: Path, mine: Identity, password: str) -> None:
    keystore, certificate = tmp_path / "keystore.p12", mine.write(tmp_path)[1]
    keystore.write_bytes(mine.keystore(password))
    environ = {"MMEKIT_KEYSTORE": str(keystore), "TMPDIR": str(tmp_path / "tmp")}
    (tmp_path / "tmp").mkdir()
    if password != "changeit":
        environ["MMEKIT_KEYSTORE_PASS"] = password
    with Server(MMEKIT_INFERENCE_ADDRESS="https://127.0.0.1:0", **environ) as server:
        tls_client(server, ssl.create_default_context(cafile=certificate)).close()
        assert not list((tmp_path / "tmp").iterdir()), "no key in a file of its own"
        assert password not in "".join(server.raw) or password == "changeit"


def test_a_keystore_wins_over_pem_files(tmp_path: Path, mine: Identity) -> None:
    key, certificate = mine.write(tmp_path)
    (tmp_path / "keystore").write_bytes(identity().keystore("changeit"))
    environ = {
        "MMEKIT_PRIVATE_KEY_FILE": str(key),
        "MMEKIT_CERTIFICATE_FILE": str(certificate),
        "MMEKIT_KEYSTORE": str(tmp_path / "keystore"),
    }
    with (
        Server(MMEKIT_INFERENCE_ADDRESS="https://127.0.0.1:0", **environ) as server,
        pytest.raises(ssl.SSLCertVerificationError),
    ):
        tls_client(server, ssl.create_default_context(cafile=certificate))


def test_without_keys_a_certificate_is_made_and_a_warning_logged() -> None:
    with Server(MMEKIT_INFERENCE_ADDRESS="https://127.0.0.1:0") as server:
        (warning,) = server.logged("self-signed certificate")
        assert warning["level"] == "WARNING"
        made = ssl.get_server_certificate(("127.0.0.1", server.port))
        with tls_client(server, ssl.create_default_context(cadata=made)) as client:
            assert client.version() == "TLSv1.3"
        with pytest.raises(ssl.SSLCertVerificationError):
            tls_client(server, ssl.create_default_context())


def test_without_cryptography_pem_files_work_and_the_rest_names_the_extra(
    tmp_path: Path, mine: Identity
) -> None:
    absent = tmp_path / "cryptography"
    absent.mkdir()
    (absent / "__init__.py").write_text("raise ImportError('not here')")
    (tmp_path / "keystore").write_bytes(mine.keystore("changeit"))
    key, certificate = mine.write(tmp_path)
    environ = {"MMEKIT_INFERENCE_ADDRESS": "https://127.0.0.1:0", "PYTHONPATH": str(tmp_path)}
    for keystore in ({}, {"MMEKIT_KEYSTORE": str(tmp_path / "keystore")}):
        code, said = refused(**environ, **keystore)
        assert code == 78
        assert "pip install 'mmekit[tls]'" in said
    files = {"MMEKIT_PRIVATE_KEY_FILE": str(key), "MMEKIT_CERTIFICATE_FILE": str(certificate)}
    with Server(**environ, **files) as server:
        assert server.get("/ping").status == 200


def _wrong_keys() -> dict[str, tuple[Callable[[Path, Identity], dict[str, str]], str]]:
    """Case → what makes its settings from a folder and a good identity, and the message."""

    def written(folder: Path, name: str, content: bytes) -> str:
        (folder / name).write_bytes(content)
        return str(folder / name)

    def pem(folder: Path, mine: Identity, **changed: str) -> dict[str, str]:
        key, certificate = mine.write(folder)
        return {"MMEKIT_PRIVATE_KEY_FILE": str(key), "MMEKIT_CERTIFICATE_FILE": str(certificate), **changed}

    def keystore(folder: Path, content: bytes, **more: str) -> dict[str, str]:
        return {"MMEKIT_KEYSTORE": written(folder, "store", content), **more}

    return {
        "no certificate": (
            lambda folder, mine: {"MMEKIT_PRIVATE_KEY_FILE": str(mine.write(folder)[0])},
            "MMEKIT_CERTIFICATE_FILE cannot be used: expected the certificate (PEM) for "
            "MMEKIT_PRIVATE_KEY_FILE.",
        ),
        "no key": (
            lambda folder, mine: {"MMEKIT_CERTIFICATE_FILE": str(mine.write(folder)[1])},
            "MMEKIT_PRIVATE_KEY_FILE cannot be used: expected the private key (PEM) for "
            "MMEKIT_CERTIFICATE_FILE.",
        ),
        "key missing": (
            lambda folder, mine: pem(folder, mine, MMEKIT_PRIVATE_KEY_FILE=f"{folder}/none"),
            "MMEKIT_PRIVATE_KEY_FILE='{folder}/none' cannot be used: expected a file that can be read "
            "(No such file or directory).",
        ),
        "certificate missing": (
            lambda folder, mine: pem(folder, mine, MMEKIT_CERTIFICATE_FILE=f"{folder}/none"),
            "MMEKIT_CERTIFICATE_FILE='{folder}/none' cannot be used: expected a file that can be read "
            "(No such file or directory).",
        ),
        "certificate a folder": (
            lambda folder, mine: pem(folder, mine, MMEKIT_CERTIFICATE_FILE=str(folder)),
            "MMEKIT_CERTIFICATE_FILE='{folder}' cannot be used: expected a file that can be read "
            "(Is a directory).",
        ),
        "key is none": (
            lambda folder, mine: pem(folder, mine, MMEKIT_PRIVATE_KEY_FILE=written(folder, "k", b"\0key")),
            "MMEKIT_PRIVATE_KEY_FILE='{folder}/k' cannot be used: expected a private key (PEM, "
            "-----BEGIN PRIVATE KEY-----).",
        ),
        "key is broken": (
            lambda folder, mine: pem(
                folder,
                mine,
                MMEKIT_PRIVATE_KEY_FILE=written(
                    folder, "k", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"
                ),
            ),
            "MMEKIT_PRIVATE_KEY_FILE='{folder}/k' cannot be used: expected a private key (PEM), this one "
            "cannot be read.",
        ),
        "certificate is none": (
            lambda folder, mine: pem(folder, mine, MMEKIT_CERTIFICATE_FILE=written(folder, "c", b"\0cert")),
            "MMEKIT_CERTIFICATE_FILE='{folder}/c' cannot be used: expected certificates (PEM, "
            "-----BEGIN CERTIFICATE-----), the server's first.",
        ),
        "key of another": (
            lambda folder, mine: pem(
                folder, mine, MMEKIT_PRIVATE_KEY_FILE=written(folder, "k", identity().key_pem())
            ),
            "MMEKIT_PRIVATE_KEY_FILE='{folder}/k' cannot be used: expected the key of the first certificate "
            "in MMEKIT_CERTIFICATE_FILE.",
        ),
        "key of another kind": (
            lambda folder, mine: pem(
                folder, mine, MMEKIT_PRIVATE_KEY_FILE=written(folder, "k", identity("rsa").key_pem())
            ),
            "MMEKIT_PRIVATE_KEY_FILE='{folder}/k' cannot be used: expected the key of the first certificate "
            "in MMEKIT_CERTIFICATE_FILE.",
        ),
        "key with a password": (
            lambda folder, mine: pem(
                folder, mine, MMEKIT_PRIVATE_KEY_FILE=written(folder, "k", mine.key_pem(password=b"secret"))
            ),
            "MMEKIT_PRIVATE_KEY_FILE='{folder}/k' cannot be used: expected a private key (PEM) without a "
            "password, this one is encrypted.",
        ),
        "key too short": (
            lambda folder, mine: pem(folder, identity("rsa", 1024)),
            "MMEKIT_CERTIFICATE_FILE='{folder}/certificate.pem' cannot be used: expected a certificate that "
            "OpenSSL accepts; it says: ee key too small.",
        ),
        "keystore missing": (
            lambda folder, mine: {"MMEKIT_KEYSTORE": f"{folder}/none"},
            "MMEKIT_KEYSTORE='{folder}/none' cannot be used: expected a file that can be read "
            "(No such file or directory).",
        ),
        "keystore is none": (
            lambda folder, mine: keystore(folder, b"not a keystore"),
            "MMEKIT_KEYSTORE='{folder}/store' cannot be used: expected a PKCS12 keystore and its password (",
        ),
        "password wrong": (
            lambda folder, mine: keystore(folder, mine.keystore("another"), MMEKIT_KEYSTORE_PASS="s3cret"),
            "MMEKIT_KEYSTORE='{folder}/store' cannot be used: expected a PKCS12 keystore and its password (",
        ),
        "keystore without a key": (
            lambda folder, mine: keystore(folder, mine.keystore("changeit", with_key=False)),
            "MMEKIT_KEYSTORE='{folder}/store' cannot be used: expected a PKCS12 keystore with a private "
            "key and its certificate, see MMEKIT_KEYSTORE_PASS.",
        ),
        "keystore of a short key": (
            lambda folder, mine: keystore(folder, identity("rsa", 1024).keystore("changeit")),
            "MMEKIT_KEYSTORE='{folder}/store' cannot be used: expected a key and a certificate that OpenSSL "
            "accepts; it says: ee key too small.",
        ),
        "keystore is JKS": (
            lambda folder, mine: keystore(folder, b"\xfe\xed\xfe\xed\0\0\0\x02"),
            "MMEKIT_KEYSTORE='{folder}/store' cannot be used: expected a PKCS12 keystore, not JKS; "
            "convert it: keytool -importkeystore -srckeystore {folder}/store -destkeystore "
            "{folder}/store.p12 -deststoretype PKCS12.",
        ),
        "keystore type JKS": (
            lambda folder, mine: keystore(folder, b"\xfe\xed\xfe\xed", MMEKIT_KEYSTORE_TYPE="jks"),
            "MMEKIT_KEYSTORE_TYPE='jks' cannot be used: expected a PKCS12 keystore, not JKS; convert it: "
            "keytool -importkeystore ",
        ),
        "keystore type unknown": (
            lambda folder, mine: keystore(folder, mine.keystore("changeit"), MMEKIT_KEYSTORE_TYPE="BKS"),
            "MMEKIT_KEYSTORE_TYPE='BKS' cannot be used: expected PKCS12.",
        ),
    }


@pytest.mark.parametrize("case", _wrong_keys())
def test_keys_that_cannot_be_used_end_the_start_with_setting_value_and_what_was_expected(
    case: str, tmp_path: Path, mine: Identity
) -> None:
    make, message = _wrong_keys()[case]
    code, said = refused(MMEKIT_INFERENCE_ADDRESS="https://127.0.0.1:0", **make(tmp_path, mine))
    assert code == 78
    assert said.startswith("mmekit: " + message.replace("{folder}", str(tmp_path)))
    assert "s3cret" not in said


def test_in_mms_mode_messages_about_keys_name_the_keys_of_the_file(tmp_path: Path) -> None:
    config = tmp_path / "config.properties"
    config.write_text(
        "inference_address=https://127.0.0.1:0\nprivate_key_file=/none\ncertificate_file=/none\n"
    )
    server = Server()
    environ = {
        name: value
        for name, value in server.environ.items()
        if name not in ("SAGEMAKER_BIND_TO_PORT", "MMEKIT_HOST")
    }
    done = subprocess.run(
        [COMMAND, "serve", "--mms-config", config],
        env=environ, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 78
    assert "mmekit: certificate_file='/none' cannot be used: expected a file that can be read" in done.stderr


# --- https: connections ----------------------------------------------------------------------------------


def test_tls_1_2_is_the_oldest_that_is_spoken(https: Server) -> None:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with tls_client(https, context) as client:
        assert client.version() == "TLSv1.2"
        cipher = client.cipher()
        assert cipher is not None
        assert cipher[0].startswith("ECDHE-")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.set_ciphers("DEFAULT@SECLEVEL=0")
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises((ssl.SSLError, ConnectionError)):
        tls_client(https, context)


def test_pipelined_requests_over_tls_are_answered_in_order(https: Server) -> None:
    sent = b"".join(request("POST", "/models/m/invoke", body=b"echo %d" % number) for number in range(5))
    replies = talk(https.addresses["inference"], sent, ["POST"] * 5)
    assert [reply.body for reply in replies] == [b"%d" % number for number in range(5)]


def test_large_bodies_pass_over_tls(https: Server) -> None:
    text = "x" * 90_000
    assert https.invoke("m", f"echo {text}").text == text
    assert len(https.invoke("m", "size 5000000").body) == 5_000_000


def test_a_stream_over_tls_arrives_in_parts(https: Server) -> None:
    answer = https.invoke("m", "stream 20 70000 0")
    assert answer.headers["transfer-encoding"] == "chunked"
    assert len(answer.body) == 20 * 70_000


def test_a_body_over_the_limit_is_refused_over_tls_and_the_client_learns_why(https: Server) -> None:
    sent = request("POST", "/models/m/invoke", body=b"x" * 500_000)
    reply = one(https.addresses["inference"], sent, "POST")
    assert reply.status == 413
    assert reply.body.endswith(b"}\n")


def test_an_error_closes_the_connection_over_tls_too(https: Server) -> None:
    reply = one(https.addresses["inference"], request("GET", "/nowhere"))
    assert (reply.status, reply.header("connection"), reply.closed) == (404, "close", True)


def test_a_client_that_ends_its_side_of_tls_early_counts_as_gone_and_harms_nobody(
    https: Server, tmp_path: Path
) -> None:
    runs = tmp_path / "runs"
    client = tls_client(https)
    client.sendall(request("POST", "/models/m/invoke", body=f"stay {runs}".encode()))
    until(runs.exists)
    client.setblocking(False)
    with contextlib.suppress(ssl.SSLWantReadError):
        client.unwrap()  # close_notify, without waiting for the server's
    client.settimeout(20)
    with contextlib.suppress(ssl.SSLZeroReturnError):
        assert client.recv(1000) == b""
    client.close()
    runs.unlink()
    assert https.invoke("m", "echo on").text == "on"


def test_plain_http_on_an_https_port_is_closed_and_harms_nobody(https: Server) -> None:
    with socket.create_connection(("127.0.0.1", https.port), 20) as plain:
        plain.sendall(PING)
        got = b""
        with contextlib.suppress(ConnectionResetError):
            while part := plain.recv(1000):
                got += part
    assert b"HTTP" not in got
    assert https.get("/ping").status == 200
    assert not [line for line in https.lines if line["level"] in ("ERROR", "CRITICAL")]


def test_clients_that_never_finish_their_handshake_do_not_hold_others_or_the_stop() -> None:
    with Server(MMEKIT_INFERENCE_ADDRESS="https://127.0.0.1:0", MMEKIT_STOP_TIMEOUT_SECONDS="1000") as server:
        silent = [socket.create_connection(("127.0.0.1", server.port), 20) for _ in range(20)]
        assert server.get("/ping").status == 200
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
        for each in silent:
            each.close()


def test_a_stop_answers_what_is_in_flight_over_tls_and_does_not_wait_for_idle_clients(tmp_path: Path) -> None:
    environ = image_environ(
        MMEKIT_INFERENCE_ADDRESS="https://127.0.0.1:0", MMEKIT_STOP_TIMEOUT_SECONDS="1000"
    )
    with Server(**environ) as server:
        assert server.load("m", plain_model(tmp_path)).status == 200
        # It asks once and then neither reads nor closes: it will not answer the server's close_notify.
        idle = tls_client(server)
        idle.sendall(PING)
        assert idle.recv(10_000).startswith(b"HTTP/1.1 200")
        runs = tmp_path / "runs"
        running = server.later(server.invoke, "m", f"stay {runs}")
        until(runs.exists)
        server.signal(signal.SIGTERM)
        server.told("Stopping")
        runs.unlink()
        answer = running.result()
        assert (answer.status, answer.text) == (200, "stayed")
        assert answer.headers["connection"] == "close"
        assert server.wait() == 0
        idle.close()


# --- Unix sockets ----------------------------------------------------------------------------------------


def test_a_unix_socket_is_removed_at_the_stop_and_its_clients_are_named_so_in_the_log(tmp_path: Path) -> None:
    path = tmp_path / "mmekit.sock"
    with Server(MMEKIT_INFERENCE_ADDRESS=f"unix:{path}") as server:
        assert path.is_socket()
        assert server.get("/nowhere").status == 404
        assert until(lambda: [line for line in server.lines if line.get("peer") == "unix"])
    assert not path.exists()


def test_the_file_of_a_server_that_was_killed_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "mmekit.sock"
    with Server(MMEKIT_INFERENCE_ADDRESS=f"unix:{path}") as first:
        first.signal(signal.SIGKILL)
        first.wait()
    assert path.is_socket()
    with Server(MMEKIT_INFERENCE_ADDRESS=f"unix:{path}") as second:
        assert second.get("/ping").status == 200
    assert not path.exists()


def test_the_file_of_a_server_that_lives_is_refused_and_left(tmp_path: Path) -> None:
    path = tmp_path / "mmekit.sock"
    with Server(MMEKIT_INFERENCE_ADDRESS=f"unix:{path}") as first:
        code, said = refused(MMEKIT_INFERENCE_ADDRESS=f"unix:{path}")
        assert code == 1
        assert said == (
            f"mmekit: The server cannot listen on unix:{path} (MMEKIT_INFERENCE_ADDRESS): another server "
            f"listens there."
        )
        assert first.get("/ping").status == 200


def test_a_file_that_another_server_has_made_meanwhile_is_left_at_the_stop(tmp_path: Path) -> None:
    path = tmp_path / "mmekit.sock"
    with Server(MMEKIT_INFERENCE_ADDRESS=f"unix:{path}"):
        path.unlink()
        with Server(MMEKIT_INFERENCE_ADDRESS=f"unix:{path}") as second:
            pass_on = path.stat().st_ino
            assert second.get("/ping").status == 200
            # The first one ends first.
            assert path.stat().st_ino == pass_on
        path.touch()
    assert path.exists()


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("{folder}/" + "x" * 108, "a Unix socket's path has at most 107 bytes."),
        ("{folder}/none/x.sock", "No such file or directory."),
        ("{folder}/file", "there is a file of this name, which is not a socket."),
        ("{folder}", "there is a file of this name, which is not a socket."),
    ],
)
def test_a_path_that_cannot_be_a_socket_is_said(tmp_path: Path, path: str, says: str) -> None:
    (tmp_path / "file").write_text("precious")
    path = path.replace("{folder}", str(tmp_path))
    code, said = refused(MMEKIT_INFERENCE_ADDRESS=f"unix:{path}")
    assert code == 1
    assert said == f"mmekit: The server cannot listen on unix:{path} (MMEKIT_INFERENCE_ADDRESS): {says}"
    assert (tmp_path / "file").read_text() == "precious"


@pytest.mark.parametrize(("umask", "mode"), [(0o077, 0o700), (0o000, 0o777), (0o022, 0o755)])
def test_the_umask_says_who_may_connect(tmp_path: Path, umask: int, mode: int) -> None:
    path = tmp_path / "mmekit.sock"
    server = Server(MMEKIT_INFERENCE_ADDRESS=f"unix:{path}")
    server.start(wrap=lambda: os.umask(umask) and None)
    try:
        assert path.stat().st_mode & 0o777 == mode
    finally:
        server.close()
