"""The certificate that is served: read again when its files change, without a restart and with no stream dropped."""

from collections.abc import Callable
from pathlib import Path

import grpc
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from services.gateway.settings import Tls
from services.telemetry.logs import log
from services.telemetry.metrics import TLS_EXPIRY

Stamp = tuple[tuple[int, int, int], ...]


class Certificates:
    """Asked by gRPC before each handshake. What cannot be served (a key of another certificate, a file half
    written) is told in one line and what was served before stays. Raises OSError, ValueError when first made."""

    def __init__(self, tls: Tls, on_expiry: Callable[[float], None] = TLS_EXPIRY.set) -> None:
        self._tls = tls
        self._on_expiry = on_expiry
        self._stamp: Stamp = self._look()
        self._first = self._read()

    def credentials(self) -> grpc.ServerCredentials:
        # The stubs leave out that None stands for "as before".
        demanded = self._tls.client_ca is not None
        return grpc.dynamic_ssl_server_credentials(self._first, self._fetch, demanded)  # type: ignore[arg-type]

    def _fetch(self) -> grpc.ServerCertificateConfiguration | None:
        """What to serve from now on; None: what was served so far."""
        try:
            if (stamp := self._look()) == self._stamp:
                return None
            self._stamp = stamp
            fresh = self._read()
        except (OSError, ValueError) as error:
            log.error("certificate kept", reason=str(error))
            return None
        log.info("certificate replaced", file=str(self._tls.certificate))
        return fresh

    def _look(self) -> Stamp:
        stats = [path.stat() for path in (self._tls.certificate, self._tls.key, self._tls.client_ca) if path]
        return tuple((stat.st_ino, stat.st_mtime_ns, stat.st_size) for stat in stats)

    def _read(self) -> grpc.ServerCertificateConfiguration:
        tls = self._tls
        chain, key = tls.certificate.read_bytes(), tls.key.read_bytes()
        client_ca = None if tls.client_ca is None else tls.client_ca.read_bytes()
        served = _first(chain, tls.certificate)
        if client_ca is not None:
            _first(client_ca, tls.client_ca)
        if _private(key, tls.key) != served.public_key():
            raise ValueError(f"tls.key: {tls.key} is not the key of {tls.certificate}")
        self._on_expiry(served.not_valid_after_utc.timestamp())
        return grpc.ssl_server_certificate_configuration([(key, chain)], client_ca)


def _first(pem: bytes, path: Path | None) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificates(pem)[0]
    except ValueError:
        raise ValueError(f"tls: {path} holds no certificate in PEM") from None


def _private(pem: bytes, path: Path) -> object:
    try:
        return load_pem_private_key(pem, None).public_key()
    except (ValueError, TypeError):
        raise ValueError(f"tls.key: {path} holds no unencrypted private key in PEM") from None
