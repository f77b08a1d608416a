"""Read and check the PEM files of TLS, because gRPC reports every fault in them as the same error."""

from __future__ import annotations

import re
from pathlib import Path

_BLOCK = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----.+?-----END \1-----", re.DOTALL)


def read_certificates(argument: str, file: str | Path) -> bytes:
    """A file with certificates, given as `argument` of TLS. Raises ValueError."""
    import ssl

    pem = _read(argument, file, "CERTIFICATE")
    found = [block[0] for block in _BLOCK.finditer(pem) if block[1].endswith(b"CERTIFICATE")]
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=b"\n".join(found).decode("ascii"))
    except (ssl.SSLError, ValueError) as error:
        raise ValueError(f"{argument}='{file}' has a damaged certificate ({_reason(error)}): create it again") from None
    return pem


def read_pair(cert: str | Path, key: str | Path) -> tuple[bytes, bytes]:
    """A certificate (or a chain, its own first) and its key. Raises ValueError."""
    import ssl

    certificates, private = read_certificates("cert", cert), _read("key", key, "PRIVATE KEY")
    if b"ENCRYPTED" in private:
        raise ValueError(
            f"key='{key}' is encrypted, and gRPC takes no passphrase: decrypt it (openssl pkey -in FILE -out FILE)"
        )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.set_ciphers("ALL:@SECLEVEL=0")  # whether a key is strong enough is for the server to say
    try:
        context.load_cert_chain(cert, key, password="")
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise ValueError(f"key='{key}' does not belong to cert='{cert}': use the key of that one") from None
        raise ValueError(f"cert='{cert}' with key='{key}' cannot be used ({_reason(error)}): make them again") from None
    return certificates, private


def _read(argument: str, file: str | Path, wanted: str) -> bytes:
    try:
        content = Path(file).read_bytes()
    except OSError as error:
        raise ValueError(f"{argument}='{file}' cannot be read ({error.strerror}): check the path") from None
    found = [block[1].decode() for block in _BLOCK.finditer(content)]
    if not any(label.endswith(wanted) for label in found):
        instead = f"but a {' and a '.join(dict.fromkeys(found)).lower()}" if found else "in PEM form (-----BEGIN ...)"
        raise ValueError(f"{argument}='{file}' has no {wanted.lower()} {instead}: give the PEM file of one")
    return content


def _reason(error: Exception) -> str:
    return str(getattr(error, "reason", None) or error)
