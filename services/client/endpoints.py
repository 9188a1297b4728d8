"""Where calls go: a channel for each endpoint, and which of them is next."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from services.api.headrace.v1 import inference_pb2_grpc, models_pb2_grpc, sessions_pb2_grpc
from services.client import pem

LOOPBACKS = ("localhost", "127.0.0.1", "[::1]")
OPTIONS = (
    ("grpc.keepalive_time_ms", 10_000),  # the endpoint refuses pings that come more often than every 5 s
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.ping_timeout_ms", 5_000),  # 60 s by itself, whatever the line above says
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.max_receive_message_length", 64 << 20),
    # A gateway that restarts is back in seconds; gRPC's own pauses grow to two minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.min_reconnect_backoff_ms", 3_000),  # what a connection may take
)


@dataclass(frozen=True, slots=True)
class Tls:
    """PEM files. Without `root` the system's certificates are trusted; a pair is for mTLS."""

    root: Path | None = None
    certificate: Path | None = None
    key: Path | None = None

    def credentials(self) -> grpc.ChannelCredentials:
        """Raises ValueError for a file that is not what it should be: gRPC would say so in its own log alone."""
        root, key, certificate = _read(self.root), _read(self.key), _read(self.certificate)
        if root is not None:
            pem.check_roots(root, str(self.root))
        if self.certificate is not None and self.key is not None:
            pem.check_pair(self.certificate, self.key)
        return grpc.ssl_channel_credentials(root, key, certificate)


class Endpoint:
    def __init__(self, address: str, tls: Tls | None) -> None:
        self.channel = _channel(address, tls)
        # Stubs are typed for sync channels; these are used with an aio one.
        self.inference: Any = inference_pb2_grpc.InferenceStub(self.channel)
        self.models: Any = models_pb2_grpc.ModelsStub(self.channel)
        self.sessions: Any = sessions_pb2_grpc.SessionsStub(self.channel)

    @property
    def failing(self) -> bool:
        return self.channel.get_state() is grpc.ChannelConnectivity.TRANSIENT_FAILURE


class Endpoints:
    """Calls stay with one endpoint until it fails. `addresses` are host:port, or a string of them with commas."""

    def __init__(self, addresses: str | Sequence[str], tls: Tls | None) -> None:
        named = addresses.split(",") if isinstance(addresses, str) else addresses
        known = [address.strip() for address in named if address.strip()]
        if not known:
            raise ValueError("no endpoint is named")
        self._all = [Endpoint(address, tls) for address in known]
        self._at = 0

    @property
    def current(self) -> Endpoint:
        turned = self._all[self._at :] + self._all[: self._at]
        return next((each for each in turned if not each.failing), turned[0])

    def leave(self, endpoint: Endpoint) -> None:
        """This one has failed a call: the next one's turn, if no other call has moved on already."""
        at = self._all.index(endpoint)
        if at == self._at or endpoint is self.current:
            self._at = (at + 1) % len(self._all)

    async def close(self) -> None:
        for endpoint in self._all:
            await endpoint.channel.close()


def _channel(address: str, tls: Tls | None) -> grpc.aio.Channel:
    # A proxy in the environment is not for this machine itself.
    own = address.rpartition(":")[0] in LOOPBACKS
    options = (*OPTIONS, ("grpc.enable_http_proxy", int(not own)))
    if tls is None:
        return grpc.aio.insecure_channel(address, options)
    return grpc.aio.secure_channel(address, tls.credentials(), options)


def _read(path: Path | None) -> bytes | None:
    try:
        return None if path is None else path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from error
