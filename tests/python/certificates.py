"""Certificates for tests, made anew for each run: an authority, and what it signs."""

from __future__ import annotations

import datetime
import ipaddress
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_DAY = datetime.timedelta(days=1)


class Authority:
    """Signs a server's certificate, and a client's.

    Args:
        directory: Where certificates and keys are written.
        address: The server's.
        ends: When the server's certificate ends, as a time from now.
    """

    def __init__(self, directory: Path, address: str = "127.0.0.1", ends: datetime.timedelta = _DAY) -> None:
        self._directory = directory
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _named("authority of a test")
        # What CPython 3.13 asks for (VERIFY_X509_STRICT).
        signs = x509.KeyUsage(
            key_cert_sign=True,
            crl_sign=True,
            **dict.fromkeys(
                (
                    *("digital_signature", "content_commitment", "key_encipherment", "data_encipherment"),
                    *("key_agreement", "encipher_only", "decipher_only"),
                ),
                False,
            ),
        )
        authority = [x509.BasicConstraints(ca=True, path_length=0), signs]
        certificate = _signed(self._name, self._key, self._name, self._key, authority, _DAY)
        #: Certificate of the authority.
        self.file = self._write("authority.pem", certificate.public_bytes(serialization.Encoding.PEM))
        #: Certificate and key.
        self.of_client = self._issue("client", x509.SubjectAlternativeName([x509.DNSName("client")]), _DAY)
        alternative = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))])
        self._of_server = self._issue("server", alternative, ends)

    def of_server(self) -> list[str]:
        """Options of a server; clients need a certificate where another option asks for it."""
        certificate, key = self._of_server
        return [
            *("--tls-cert-file", certificate, "--tls-key-file", key, "--tls-ca-cert-file", self.file),
            *("--tls-auth-clients", "optional"),
        ]

    def _issue(self, name: str, alternative: x509.ExtensionType, ends: datetime.timedelta) -> tuple[str, str]:
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = _signed(_named(name), key, self._name, self._key, [alternative], ends)
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return (
            self._write(f"{name}.pem", certificate.public_bytes(serialization.Encoding.PEM)),
            self._write(f"{name}.key", private),
        )

    def _write(self, name: str, data: bytes) -> str:
        path = self._directory / name
        path.write_bytes(data)
        return str(path)


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])


def _signed(
    subject: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    issuer: x509.Name,
    by: ec.EllipticCurvePrivateKey,
    extensions: Sequence[x509.ExtensionType],
    ends: datetime.timedelta,
) -> x509.Certificate:
    now = datetime.datetime.now(datetime.timezone.utc)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - 3 * _DAY)
        .not_valid_after(now + ends)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(by.public_key()), critical=False)
    )
    for extension in extensions:
        builder = builder.add_extension(extension, critical=not isinstance(extension, x509.SubjectAlternativeName))
    return builder.sign(by, hashes.SHA256())
