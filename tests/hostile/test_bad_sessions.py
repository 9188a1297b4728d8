"""Every malformed call of the Sessions service is refused by name, and makes no session."""

import grpc
import pytest

from services.api.headrace.v1 import sessions_pb2 as pb
from tests.hostile.test_bad_input import details
from tests.support.gateway import Endpoint, mint_key, running_gateway, user

ABSENT = "session_" + "0" * 32
CASES: dict[str, tuple[pb.CreateSessionRequest, str]] = {
    "too many pairs": (pb.CreateSessionRequest(metadata={f"k{n}": "v" for n in range(17)}), "metadata"),
    "empty key": (pb.CreateSessionRequest(metadata={"": "v"}), "metadata"),
    "long key": (pb.CreateSessionRequest(metadata={"k" * 65: "v"}), "metadata"),
    "key with a space": (pb.CreateSessionRequest(metadata={"a b": "v"}), "metadata"),
    "key with a line's end": (pb.CreateSessionRequest(metadata={"a\n": "v"}), "metadata"),
    "key of other letters": (pb.CreateSessionRequest(metadata={"clé": "v"}), "metadata"),
    "long value": (pb.CreateSessionRequest(metadata={"k": "é" * 257}), "metadata[k]"),
    "blank system": (pb.CreateSessionRequest(system=" \n"), "system"),
    "ttl too short": (pb.CreateSessionRequest(ttl_seconds=59), "ttl_seconds"),
    "ttl over the limit": (pb.CreateSessionRequest(ttl_seconds=2_592_001), "ttl_seconds"),
    "ttl negative": (pb.CreateSessionRequest(ttl_seconds=-1), "ttl_seconds"),
    "system too large": (pb.CreateSessionRequest(system="x" * (4 << 20)), ""),
}


async def code_of(call: grpc.aio.UnaryUnaryCall) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as refusal:
        await call
    return refusal.value


@pytest.mark.parametrize("case", CASES)
async def test_a_malformed_session_names_its_field_and_is_not_made(case: str) -> None:
    request, field = CASES[case]
    async with running_gateway() as endpoint:
        error = await code_of(endpoint.sessions.Create(request, metadata=endpoint.auth))
        if field:
            assert error.code() is grpc.StatusCode.INVALID_ARGUMENT and field in details(error)[0]
        else:
            assert error.code() in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.RESOURCE_EXHAUSTED)
        listed = await endpoint.sessions.List(pb.ListSessionsRequest(), metadata=endpoint.auth)
        assert not listed.sessions


async def test_what_is_just_within_the_bounds_is_kept_as_it_is() -> None:
    metadata = {f"{'k' * 60}.-_{n:x}": "é" * 256 for n in range(16)}
    async with running_gateway() as endpoint:
        request = pb.CreateSessionRequest(metadata=metadata, system="x")
        made = await endpoint.sessions.Create(request, metadata=endpoint.auth)
        got = await endpoint.sessions.Get(pb.GetSessionRequest(id=made.id), metadata=endpoint.auth)
        assert dict(got.metadata) == metadata


async def test_a_refusal_does_not_repeat_a_key_or_a_value() -> None:
    async with running_gateway() as endpoint:
        for metadata in ({"canary key": "v"}, {"k": "canary" * 100}, {"canary" * 20: "v"}):
            request = pb.CreateSessionRequest(metadata=metadata)
            error = await code_of(endpoint.sessions.Create(request, metadata=endpoint.auth))
            assert "canary" not in str(error)


async def test_the_operators_screen_reads_system_prompts_and_metadata() -> None:
    async with running_gateway(screen=("launch code",)) as endpoint:
        for request in (
            pb.CreateSessionRequest(system="the launch code"),
            pb.CreateSessionRequest(metadata={"k": "the launch code"}),
        ):
            error = await code_of(endpoint.sessions.Create(request, metadata=endpoint.auth))
            assert error.code() is grpc.StatusCode.PERMISSION_DENIED


async def test_the_operator_caps_how_long_sessions_are_kept() -> None:
    async with running_gateway(session_ttl_limit=600) as endpoint:
        request = pb.CreateSessionRequest(ttl_seconds=601)
        error = await code_of(endpoint.sessions.Create(request, metadata=endpoint.auth))
        assert details(error)[0] == ["ttl_seconds"] and "600" in (error.details() or "")
        made = await endpoint.sessions.Create(pb.CreateSessionRequest(), metadata=endpoint.auth)
        assert made.expires.seconds - made.created.seconds == 600


def calls(endpoint: Endpoint, id: str) -> list[grpc.aio.UnaryUnaryCall]:
    auth = endpoint.auth
    return [
        endpoint.sessions.Get(pb.GetSessionRequest(id=id), metadata=auth),
        endpoint.sessions.Fork(pb.ForkSessionRequest(id=id), metadata=auth),
        endpoint.sessions.Delete(pb.DeleteSessionRequest(id=id), metadata=auth),
    ]


async def exported(endpoint: Endpoint, id: str) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as refusal:
        async for _ in endpoint.sessions.Export(pb.ExportSessionRequest(id=id), metadata=endpoint.auth):
            raise AssertionError("something was exported")
    return refusal.value


async def test_a_foreign_session_cannot_be_told_from_none() -> None:
    async with running_gateway() as endpoint:
        request = pb.CreateSessionRequest(messages=[user("mine")])
        mine = await endpoint.sessions.Create(request, metadata=endpoint.auth)
        endpoint.key = await mint_key(endpoint.stores, "intruder")
        told = [
            [
                (error.code(), error.details())
                for error in [
                    *[await code_of(call) for call in calls(endpoint, id)],
                    await exported(endpoint, id),
                ]
            ]
            for id in (mine.id, ABSENT)
        ]
        assert told[0] == told[1] and {code for code, _ in told[0]} == {grpc.StatusCode.NOT_FOUND}


@pytest.mark.parametrize("id", ["", "*", "{x}", ABSENT + "\n", "a" * 10_000])
async def test_an_ill_formed_id_is_an_invalid_argument(id: str) -> None:
    async with running_gateway() as endpoint:
        for error in [*[await code_of(call) for call in calls(endpoint, id)], await exported(endpoint, id)]:
            assert error.code() is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (pb.GetSessionRequest(from_version=-1), "from_version"),
        (pb.GetSessionRequest(from_version=2), "from_version"),
        (pb.GetSessionRequest(from_version=2**63 - 1), "from_version"),
        (pb.GetSessionRequest(max_turns=-1), "max_turns"),
        (pb.GetSessionRequest(max_turns=1001), "max_turns"),
        (pb.ForkSessionRequest(at_version=-1), "at_version"),
        (pb.ForkSessionRequest(at_version=2**63 - 1), "at_version"),
    ],
)
async def test_versions_and_counts_out_of_range_name_their_field(
    request_: pb.GetSessionRequest | pb.ForkSessionRequest, field: str
) -> None:
    async with running_gateway() as endpoint:
        request_.id = (await endpoint.sessions.Create(pb.CreateSessionRequest(), metadata=endpoint.auth)).id
        verb = endpoint.sessions.Get if isinstance(request_, pb.GetSessionRequest) else endpoint.sessions.Fork
        error = await code_of(verb(request_, metadata=endpoint.auth))
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT and details(error)[0] == [field]


async def test_without_a_key_no_verb_answers() -> None:
    async with running_gateway() as endpoint:
        endpoint.key = "hr_wrong"
        errors = [await code_of(call) for call in calls(endpoint, ABSENT)]
        assert {e.code() for e in (*errors, await exported(endpoint, ABSENT))} == {
            grpc.StatusCode.UNAUTHENTICATED
        }
