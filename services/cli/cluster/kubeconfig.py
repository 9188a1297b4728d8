"""What the Kubernetes library takes of a kubeconfig, and only the first request would stumble over."""

import logging
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit


def check(settings: Any) -> None:
    """Raises ValueError for a server or PEM files that no request could be made with."""
    try:
        address = urlsplit(settings.host)
        good = address.scheme in ("https", "http") and address.hostname and address.port != 0
    except ValueError:
        good = False  # its port is no number, or a bracket has no other
    if not good:
        raise ValueError(f"its server, {settings.host!r}, is no URL such as https://host:6443")
    _check_pem(settings)


def _check_pem(settings: Any) -> None:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        if settings.ssl_ca_cert:
            tls.load_verify_locations(settings.ssl_ca_cert)
    except ssl.SSLError as error:
        raise ValueError("its certificate authority is no certificate in PEM") from error
    try:
        if settings.cert_file and settings.key_file:
            tls.load_cert_chain(settings.cert_file, settings.key_file)
    except ssl.SSLError as error:
        raise ValueError("its client certificate and key are no pair in PEM") from error


@contextmanager
def login() -> Iterator[None]:
    """Raises ValueError for what the library only logs: without the user's exec plugin it goes on as nobody."""
    said: list[str] = []
    handler = logging.Handler(logging.ERROR)
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    root = logging.getLogger()
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)
    if said:
        raise ValueError(f"the login plugin of its user does not work: {said[0]}")
