"""Keys and certificates made or unlocked with ``cryptography``; imported only where https needs them.

Both functions return PEM text: the private key without a password, its certificate, the rest of the chain.
"""

from __future__ import annotations

import datetime
import ipaddress
import socket

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, pkcs12

#: Longer than any container lives; nobody can verify such a certificate anyway.
_SELF_SIGNED_DAYS = 3650

#: Clocks of clients may be behind by this.
_SLACK = datetime.timedelta(days=1)


def from_pkcs12(data: bytes, password: str) -> bytes:
    """Return what a PKCS12 keystore holds. Raises ValueError that says what was expected."""
    try:
        stored = pkcs12.load_pkcs12(data, password.encode())
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ValueError(f"a PKCS12 keystore and its password ({error})") from None
    if stored.key is None or stored.cert is None:
        raise ValueError("a PKCS12 keystore with a private key and its certificate")
    chain = [stored.cert.certificate, *(each.certificate for each in stored.additional_certs)]
    key = stored.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return key + b"".join(certificate.public_bytes(Encoding.PEM) for certificate in chain)


def self_signed(host: str) -> bytes:
    """Make a key and a certificate for ``host``, this machine's name and loopback."""
    key = ec.generate_private_key(ec.SECP256R1())
    issuer = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "mmekit self-signed")])
    now = datetime.datetime.now(datetime.timezone.utc)
    hosts = dict.fromkeys([host, socket.gethostname(), "localhost", "127.0.0.1", "::1"])
    names = [name for name in map(_general_name, hosts) if name is not None]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(issuer)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _SLACK)
        .not_valid_after(now + datetime.timedelta(days=_SELF_SIGNED_DAYS))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return pem + certificate.public_bytes(Encoding.PEM)


def _general_name(host: str) -> x509.GeneralName | None:
    """Return a host as certificates have it; None for one that cannot be in DNS."""
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        pass
    try:
        return x509.DNSName(host.encode("idna").decode())
    except UnicodeError:
        return None
