"""Whether PEM files are what TLS needs, and of each other."""

import ssl
from pathlib import Path


def check_roots(content: bytes, name: str) -> None:
    """Raises ValueError if there is no certificate in `content`."""
    text = content.decode("ascii", errors="ignore")  # comments around the blocks may have any letters
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=text)
    except (ssl.SSLError, ValueError) as error:
        raise ValueError(f"{name} has no certificate in PEM") from error


def check_pair(certificate: Path, key: Path) -> None:
    """Raises ValueError if they are no certificate and key, or not of each other."""
    if not (certificate.is_file() and key.is_file()):
        return  # a pipe can be read once, and that was it
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(certificate, key, _no_password)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise ValueError(f"{key} is not the key of {certificate}") from error
        raise ValueError(f"{certificate} and {key} are no certificate and key in PEM") from error


def _no_password() -> str:
    raise ValueError("the client's key is encrypted, which gRPC cannot read: give it a decrypted one")
