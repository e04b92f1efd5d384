"""Settings of the ports that a server listens on: addresses, keys of https, CORS."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mmekit import parsers
from mmekit.address import Address
from mmekit.settings import setting


@dataclass(frozen=True)
class ConnectorSettings:
    """Where and how a server listens."""

    host: str = setting("0.0.0.0", {"MMEKIT_HOST": parsers.text}, "address", "Address to listen on.")
    port: int = setting(
        8080,
        {"SAGEMAKER_BIND_TO_PORT": parsers.whole(0, 65535)},
        "port",
        "Port of all routes; 0 takes a free one.",
    )
    safe_port_range: tuple[int, int] | None = setting(
        None,
        {"SAGEMAKER_SAFE_PORT_RANGE": parsers.port_range},
        "ports",
        "Ports a container may use beside the first. The native engine needs no second port.",
    )
    inference_address: Address | None = setting(
        None,
        {"MMEKIT_INFERENCE_ADDRESS": parsers.address(80, 443)},
        "address",
        "`http://HOST:PORT`, `https://HOST:PORT` or `unix:/PATH` of the inference routes. Takes the place of "
        "`MMEKIT_HOST` and `SAGEMAKER_BIND_TO_PORT`, unless those come from a source that wins.",
        key={"inference_address": parsers.address(80, 443)},
        mms_default=Address("http", "127.0.0.1", 8080),
    )
    management_address: Address | None = setting(
        None,
        {"MMEKIT_MANAGEMENT_ADDRESS": parsers.address(8081, 8444)},
        "address",
        "The same for the management routes; equal addresses make one port of all routes.",
        key={"management_address": parsers.address(8081, 8444)},
        mms_default=Address("http", "127.0.0.1", 8081),
        default_text="as the inference address",
    )
    private_key_file: Path | None = setting(
        None,
        {"MMEKIT_PRIVATE_KEY_FILE": parsers.path},
        "file",
        "Private key (PEM) for https.",
        key={"private_key_file": parsers.path},
    )
    certificate_file: Path | None = setting(
        None,
        {"MMEKIT_CERTIFICATE_FILE": parsers.path},
        "file",
        "Certificate chain (PEM) for https.",
        key={"certificate_file": parsers.path},
    )
    keystore: Path | None = setting(
        None,
        {"MMEKIT_KEYSTORE": parsers.path},
        "file",
        "Key and certificate for https in one file, instead of the two PEM files.",
        key={"keystore": parsers.path},
    )
    keystore_pass: str = setting(
        "changeit",
        {"MMEKIT_KEYSTORE_PASS": parsers.text},
        "text",
        "Password of the keystore.",
        key={"keystore_pass": parsers.text},
        secret=True,
    )
    keystore_type: str = setting(
        "PKCS12",
        {"MMEKIT_KEYSTORE_TYPE": parsers.text},
        "type",
        "Format of the keystore.",
        key={"keystore_type": parsers.text},
    )
    cors_allowed_origin: str | None = setting(
        None,
        {"MMEKIT_CORS_ALLOWED_ORIGIN": parsers.header_value},
        "origin",
        "Pages of this origin may call the server (`Access-Control-Allow-Origin`).",
        key={"cors_allowed_origin": parsers.header_value},
    )
    cors_allowed_methods: str | None = setting(
        None,
        {"MMEKIT_CORS_ALLOWED_METHODS": parsers.header_value},
        "methods",
        "`Access-Control-Allow-Methods`.",
        key={"cors_allowed_methods": parsers.header_value},
    )
    cors_allowed_headers: str | None = setting(
        None,
        {"MMEKIT_CORS_ALLOWED_HEADERS": parsers.header_value},
        "headers",
        "`Access-Control-Allow-Headers`.",
        key={"cors_allowed_headers": parsers.header_value},
    )
