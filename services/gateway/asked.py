"""What a caller asked for, validated, and its form in a turn's record, from which another gateway goes on."""

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass

import msgspec
from google.protobuf.message import DecodeError

from services.api.headrace.v1 import inference_pb2 as pb
from services.core.errors import Violation
from services.core.request import Ask, Scope, Tenant
from services.gateway.settings import GatewaySettings
from services.journal.port import Claim
from services.sessions.port import Session

MAX_KEY = 255  # characters
MAX_LINGER = 3600  # seconds
CLAIM_KEPT = 86_400.0  # seconds that an idempotency key is known


@dataclass(frozen=True, slots=True)
class Life:
    """How a turn lives. Times are seconds; an infinite `linger` needs no reader."""

    linger: float
    timeout: float | None = None
    durable: bool = False
    claim: Claim | None = None

    @property
    def must_be_kept(self) -> bool:
        """It is refused while the store is away."""
        return self.claim is not None or self.must_end_kept

    @property
    def must_end_kept(self) -> bool:
        """Its readers are not told an ending that the store does not have."""
        return self.durable or math.isinf(self.linger)


@dataclass(frozen=True, slots=True)
class Asked:
    tenant: Tenant
    request: pb.GenerateRequest
    ask: Ask
    life: Life


class Kept(msgspec.Struct, frozen=True, array_like=True):
    """A turn's record. `wall`: seconds since the epoch when it began; `version` and `messages` are those of
    the session's history."""

    request: bytes
    tenant: str
    key: str
    scopes: tuple[str, ...]
    wall: float
    linger: float
    version: int
    messages: int
    gone: int = 0  # of them, not in the prompt
    text: str = ""  # the summary in their place
    trace: str = ""  # W3C traceparent of the turn


def pack(
    asked: Asked, session: Session | None, wall: float, gone: int = 0, text: str = "", trace: str = ""
) -> bytes:
    tenant, request = asked.tenant, pb.GenerateRequest()
    request.CopyFrom(asked.request)
    # Nothing checks or reads them, and a message of megabytes would fit into what nobody knows.
    request.DiscardUnknownFields()
    kept = Kept(
        request=request.SerializeToString(),
        tenant=tenant.id,
        key=tenant.key,
        scopes=tuple(tenant.scopes),
        wall=wall,
        linger=asked.life.linger,
        version=0 if session is None else session.version,
        messages=0 if session is None else len(session.messages),
        gone=gone,
        text=text,
        trace=trace,
    )
    return msgspec.msgpack.encode(kept)


def unpack(data: bytes) -> Kept:
    """Raises ValueError for bytes that `pack` did not make."""
    return msgspec.msgpack.decode(data, type=Kept)


def request_of(kept: Kept) -> pb.GenerateRequest:
    """Raises ValueError."""
    try:
        return pb.GenerateRequest.FromString(kept.request)
    except DecodeError:
        raise ValueError("a turn's record without its request") from None


def tenant_of(kept: Kept) -> Tenant:
    return Tenant(kept.tenant, kept.key, frozenset(map(Scope, kept.scopes)))


def check_life(request: pb.GenerateRequest, most: float) -> Iterator[Violation]:
    """`most`: seconds that a turn may take."""
    key = request.idempotency_key
    if key and not (len(key) <= MAX_KEY and key.isascii() and key.isprintable()):
        yield Violation("idempotency_key", f"1 to {MAX_KEY} printable ASCII characters")
    if request.HasField("linger_seconds") and not 0 <= request.linger_seconds <= MAX_LINGER:
        yield Violation("linger_seconds", f"0 to {MAX_LINGER}; {request.linger_seconds} was sent")
    if request.HasField("timeout_seconds") and not 1 <= request.timeout_seconds <= most:
        yield Violation("timeout_seconds", f"1 to {most:g}; {request.timeout_seconds} was sent")
    if request.HasField("session_version") and not request.session:
        yield Violation("session_version", "with a session only")
    for field, kind in (("context_policy", pb.ContextPolicy), ("session_busy", pb.SessionBusy)):
        value = getattr(request, field)
        if value not in kind.values():
            yield Violation(field, f"one of {', '.join(kind.keys())}")
        elif value and not request.session:
            yield Violation(field, "with a session only")


def read_life(request: pb.GenerateRequest, settings: GatewaySettings, *, streams: bool) -> Life:
    """`streams`: the caller learns the turn's id at once, and so can come back to it."""
    claim = claim_of(request)
    linger = settings.linger if streams or claim is not None else 0.0
    return Life(
        linger=float(request.linger_seconds) if request.HasField("linger_seconds") else linger,
        timeout=float(request.timeout_seconds) if request.HasField("timeout_seconds") else None,
        durable=request.durable,
        claim=claim,
    )


def claim_of(request: pb.GenerateRequest) -> Claim | None:
    key = request.idempotency_key
    return Claim(key, _digest(request), CLAIM_KEPT) if key else None


def _digest(request: pb.GenerateRequest) -> str:
    """Of what decides the answer: how long a caller waits does not."""
    asked = pb.GenerateRequest()
    asked.CopyFrom(request)
    for field in ("idempotency_key", "linger_seconds", "timeout_seconds"):
        asked.ClearField(field)
    return hashlib.sha256(asked.SerializeToString(deterministic=True)).hexdigest()
