"""Certificates and their keys for tests of TLS, made here."""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

HOUR = datetime.timedelta(hours=1)


def issue(
    folder: Path,
    name: str,
    signer: Any = None,
    *,
    valid: tuple[datetime.timedelta, datetime.timedelta] = (-HOUR, HOUR),
    addresses: Sequence[str] = ("127.0.0.1",),
) -> Any:
    """Write NAME.pem and NAME.key for `addresses`; returns what signs others. Signed by `signer`, or by itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    certificate, signing_key = signer or (None, key)
    built = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(certificate.subject if certificate else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + valid[0])
        .not_valid_after(now + valid[1])
        .add_extension(x509.BasicConstraints(ca=signer is None, path_length=None), critical=True)
        .add_extension(
            x509.SubjectAlternativeName(
                [x509.DNSName(name), *(x509.IPAddress(ipaddress.ip_address(address)) for address in addresses)]
            ),
            critical=False,
        )
        .sign(signing_key, hashes.SHA256())
    )
    (folder / f"{name}.pem").write_bytes(built.public_bytes(serialization.Encoding.PEM))
    (folder / f"{name}.key").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return built, key


def issue_all(folder: Path) -> Path:
    """An authority, `triton` and `caller` signed by it, and a `stranger` that is not."""
    authority = issue(folder, "authority")
    issue(folder, "triton", authority)
    issue(folder, "caller", authority)
    issue(folder, "stranger")
    return folder


def mutual_flags(folder: Path) -> tuple[str, ...]:
    """What makes a Triton show its certificate and want the caller's."""
    return (
        "--grpc-use-ssl=1",
        "--grpc-use-ssl-mutual=1",
        f"--grpc-server-cert={folder / 'triton.pem'}",
        f"--grpc-server-key={folder / 'triton.key'}",
        f"--grpc-root-cert={folder / 'authority.pem'}",
    )
