"""Private keys and certificates for tests of https."""

from __future__ import annotations

import datetime
import ipaddress
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    pkcs12,
)

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey


@dataclass
class Identity:
    """A key and its certificate, which is good for 127.0.0.1 and ::1 and signed by itself."""

    key: PrivateKey
    certificate: x509.Certificate

    def key_pem(self, form: PrivateFormat = PrivateFormat.PKCS8, password: bytes = b"") -> bytes:
        encryption: KeySerializationEncryption = (
            BestAvailableEncryption(password) if password else NoEncryption()
        )
        return self.key.private_bytes(Encoding.PEM, form, encryption)

    def certificate_pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)

    def keystore(self, password: str, with_key: bool = True) -> bytes:
        if with_key:
            return pkcs12.serialize_key_and_certificates(
                b"key", self.key, self.certificate, None, BestAvailableEncryption(password.encode())
            )
        return pkcs12.serialize_key_and_certificates(
            b"key", None, None, [self.certificate], BestAvailableEncryption(password.encode())
        )

    def write(self, folder: Path, form: PrivateFormat = PrivateFormat.PKCS8) -> tuple[Path, Path]:
        """Write key.pem and certificate.pem; return their paths."""
        key, certificate = folder / "key.pem", folder / "certificate.pem"
        key.write_bytes(self.key_pem(form))
        certificate.write_bytes(self.certificate_pem())
        return key, certificate


def identity(kind: str = "ec", bits: int = 2048) -> Identity:
    """Make one; ``kind`` is ec or rsa."""
    key: PrivateKey
    if kind == "ec":
        key = ec.generate_private_key(ec.SECP256R1())
    else:
        key = rsa.generate_private_key(65537, bits)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    hosts = [x509.IPAddress(ipaddress.ip_address(host)) for host in ("127.0.0.1", "::1")]
    now = datetime.datetime.now(datetime.timezone.utc)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(hosts), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    return Identity(key, certificate)
