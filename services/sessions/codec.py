"""A session's values as the store has them: JSON, which the seal then turns into what is kept."""

from collections.abc import Mapping, Sequence

from msgspec.json import decode, encode

from services.core.request import Message, Role, ToolCall
from services.sessions.port import Session, SessionTurn, Summary
from services.sessions.vault import Seal

Fields = Mapping[bytes, bytes]


def pack(messages: Sequence[Message], first: int, seal: Seal) -> list[bytes]:
    """`first`: index of the first of them in the session."""
    return [seal.put(_text(m), "message", first + i) for i, m in enumerate(messages)]


def unpack(packed: Sequence[bytes], first: int, seal: Seal) -> tuple[Message, ...]:
    return tuple(_message(seal.take(value, "message", first + i)) for i, value in enumerate(packed))


def pack_turn(turn: SessionTurn) -> bytes:
    """As append.lua writes it: text only, so that no number loses digits on the way."""
    numbers = (turn.version, f"{turn.created:.6f}", turn.first, turn.count, turn.size)
    return encode([turn.id, *map(str, numbers), turn.model])


def unpack_turn(packed: bytes) -> SessionTurn:
    id, version, created, first, count, size, model = decode(packed)
    return SessionTurn(id, int(version), float(created), int(first), int(count), int(size), model)


def head(session: Session, ttl: int, seal: Seal, *, sealed: bool) -> dict[str, bytes | str | int]:
    """`ttl` in milliseconds. Counts are of what `session` has."""
    return {
        "version": session.version,
        "count": len(session.messages),
        "bytes": sum(turn.size for turn in session.turns),
        "ttl": ttl,
        "created": f"{session.created:.6f}",
        "expires": f"{session.expires:.6f}",
        "sealed": int(sealed),
        "metadata": seal.put(encode(dict(session.metadata)), "metadata"),
        "forked_from": session.forked_from,
        "forked_at": session.forked_at,
    }


def unpack_head(id: str, fields: Fields, seal: Seal) -> Session:
    """The session without messages, turns and summary."""
    return Session(
        id=id,
        version=int(fields[b"version"]),
        messages=(),
        created=float(fields[b"created"]),
        expires=float(fields[b"expires"]),
        metadata=decode(seal.take(fields[b"metadata"], "metadata")),
        forked_from=fields[b"forked_from"].decode(),
        forked_at=int(fields[b"forked_at"]),
    )


def pack_summary(summary: Summary, seal: Seal) -> bytes:
    return seal.put(summary.text.encode(), "summary", summary.covers)


def unpack_summary(fields: Fields, seal: Seal) -> Summary | None:
    if not fields:
        return None
    covers = int(fields[b"covers"])
    return Summary(covers, seal.take(fields[b"text"], "summary", covers).decode())


def _text(message: Message) -> bytes:
    calls = [[call.id, call.name, call.arguments] for call in message.calls]
    fields = {"reasoning": message.reasoning, "calls": calls, "call_id": message.call_id}
    more = {name: value for name, value in fields.items() if value}
    packed = [message.role, message.text, more] if more else [message.role, message.text]
    return encode(packed)


def _message(packed: bytes) -> Message:
    role, text, *rest = decode(packed)
    more = rest[0] if rest else {}
    calls = tuple(ToolCall(*call) for call in more.get("calls", ()))
    return Message(Role(role), text, more.get("reasoning", ""), calls, more.get("call_id", ""))
