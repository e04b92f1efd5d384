"""The TLS side of an https listener: key and certificate from PEM files, a keystore, or made on the spot.

PEM files need nothing but Python's ssl. Keystores and self-signed certificates need ``cryptography`` (the
extra ``tls``), which is imported only then. TLS 1.2 and later, with the ciphers that Python's ssl has by
default: forward secrecy, no SHA-1.
"""

from __future__ import annotations

import logging
import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

from mmekit.errors import ConfigError

_log = logging.getLogger(__name__)

#: First bytes of a Java keystore of the old kind (JDK: sun.security.provider.JavaKeyStore).
_JKS_MAGIC = b"\xfe\xed\xfe\xed"


@dataclass(frozen=True)
class KeyFiles:
    """Where key and certificate come from, and what messages call each setting.

    A keystore wins over PEM files (MMS: ConfigManager.getSslContext); without either a certificate is made.
    ``names`` maps the fields to the names of their settings.
    """

    private_key_file: Path | None = None
    certificate_file: Path | None = None
    keystore: Path | None = None
    keystore_pass: str = "changeit"
    keystore_type: str = "PKCS12"
    names: Mapping[str, str] = field(default_factory=dict)

    def name(self, setting: str) -> str:
        return self.names.get(setting, setting)

    def wrong(self, setting: str, expected: str) -> ConfigError:
        """Return the error that names a setting, its value and what was expected."""
        value = getattr(self, setting)
        shown = f"={str(value)!r}" if value is not None else ""
        return ConfigError(f"{self.name(setting)}{shown} cannot be used: expected {expected}.")


def server_context(files: KeyFiles, host: str) -> ssl.SSLContext:
    """Return the context of a listener on ``host``. Raises ConfigError for what cannot be used."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    if files.keystore is not None:
        _load_keystore(context, files, files.keystore)
    elif files.private_key_file is not None or files.certificate_file is not None:
        _load_files(context, files)
    else:
        asked = "An https address without private_key_file and certificate_file, or keystore,"
        _load_pem(context, _certificates(asked).self_signed(host))
        _log.warning(
            "https on %s with a self-signed certificate, which no client can verify; set %s and %s, or %s.",
            host,
            files.name("private_key_file"),
            files.name("certificate_file"),
            files.name("keystore"),
        )
    return context


# --- PEM files -----------------------------------------------------------------------------------


def _load_files(context: ssl.SSLContext, files: KeyFiles) -> None:
    certificate, key = files.certificate_file, files.private_key_file
    if certificate is None:
        raise files.wrong("certificate_file", f"the certificate (PEM) for {files.name('private_key_file')}")
    if key is None:
        raise files.wrong("private_key_file", f"the private key (PEM) for {files.name('certificate_file')}")
    _read(files, "certificate_file", certificate)
    if b"PRIVATE KEY-----" not in _read(files, "private_key_file", key):
        raise files.wrong("private_key_file", "a private key (PEM, -----BEGIN PRIVATE KEY-----)")

    def password() -> str:
        raise files.wrong("private_key_file", "a private key (PEM) without a password, this one is encrypted")

    try:
        context.load_cert_chain(certificate, key, password)
    except ssl.SSLError as error:
        raise _refused(files, certificate, error) from None


def _refused(files: KeyFiles, certificate: Path, error: ssl.SSLError) -> ConfigError:
    """Say which of the two files OpenSSL means, and why."""
    if error.reason in ("KEY_VALUES_MISMATCH", "NO_CERTIFICATE_ASSIGNED"):  # the latter: not even of its kind
        other = files.name("certificate_file")
        return files.wrong("private_key_file", f"the key of the first certificate in {other}")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(certificate)
    except ssl.SSLError:
        return files.wrong(
            "certificate_file", "certificates (PEM, -----BEGIN CERTIFICATE-----), the server's first"
        )
    if error.reason in (None, "PEM_LIB"):
        return files.wrong("private_key_file", "a private key (PEM), this one cannot be read")
    return files.wrong("certificate_file", f"a certificate that OpenSSL accepts; it says: {_reason(error)}")


def _reason(error: ssl.SSLError) -> str:
    return (error.reason or str(error)).replace("_", " ").lower()


def _read(files: KeyFiles, setting: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise files.wrong(setting, f"a file that can be read ({error.strerror})") from None


# --- with cryptography ---------------------------------------------------------------------------


def _certificates(asked: str) -> ModuleType:
    try:
        from mmekit.http import certificates
    except ImportError:
        raise ConfigError(
            f"{asked} needs the package cryptography, which is not installed: pip install 'mmekit[tls]'."
        ) from None
    return certificates


def _load_keystore(context: ssl.SSLContext, files: KeyFiles, path: Path) -> None:
    kind = files.keystore_type.upper()
    if kind not in ("PKCS12", "JKS"):
        raise files.wrong("keystore_type", "PKCS12")
    data = _read(files, "keystore", path)
    if kind == "JKS" or data.startswith(_JKS_MAGIC):
        raise files.wrong(
            "keystore_type" if kind == "JKS" else "keystore",
            f"a PKCS12 keystore, not JKS; convert it: keytool -importkeystore -srckeystore {path} "
            f"-destkeystore {path}.p12 -deststoretype PKCS12",
        )
    try:
        pem = _certificates(files.name("keystore")).from_pkcs12(data, files.keystore_pass)
    except ValueError as error:
        raise files.wrong("keystore", f"{error}, see {files.name('keystore_pass')}") from None
    try:
        _load_pem(context, pem)
    except ssl.SSLError as error:
        expected = f"a key and a certificate that OpenSSL accepts; it says: {_reason(error)}"
        raise files.wrong("keystore", expected) from None


def _load_pem(context: ssl.SSLContext, pem: bytes) -> None:
    """Give ssl what it reads from files only; this one has no name and never was on a disk."""
    with os.fdopen(os.memfd_create("mmekit-tls", os.MFD_CLOEXEC), "wb") as file:
        file.write(pem)
        file.flush()
        context.load_cert_chain(f"/proc/self/fd/{file.fileno()}")
