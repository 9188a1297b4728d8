"""validate() is total: any message gives an Ask or a refusal that names what is wrong."""

from contextlib import suppress

from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st

from services.api.headrace.v1 import inference_pb2 as pb
from services.core.errors import HeadraceError
from services.core.request import Ask
from services.gateway.validate import ModelLimits, fit, validate

LIMITS = {"m": ModelLimits(vocabulary=1000, context_length=100)}

any_float = st.floats(width=32)
any_int = st.integers(-(2**31), 2**31 - 1)
samplings = st.builds(
    lambda floats, top_k, seed: pb.Sampling(**floats, top_k=top_k, seed=seed),
    st.dictionaries(st.sampled_from(["temperature", "top_p", "min_p", "presence_penalty"]), any_float),
    any_int,
    st.integers(-(2**63), 2**63 - 1),
)
messages = st.builds(
    lambda role, texts: pb.Message(role=role, content=[pb.Part(text=t) for t in texts]),
    st.integers(0, 5),
    st.lists(st.text(), max_size=3),
)
requests = st.builds(
    lambda m, s, n, low, stops: pb.GenerateRequest(
        messages=m, sampling=s, max_tokens=n, min_tokens=low, stop=stops
    ),
    st.lists(messages, max_size=4),
    samplings,
    any_int,
    any_int,
    st.lists(st.text(max_size=300), max_size=20),
)


@settings(max_examples=300, deadline=None)
@given(requests)
def test_any_request_is_asked_or_refused(request: pb.GenerateRequest) -> None:
    try:
        ask = validate(request, LIMITS)
    except HeadraceError as error:
        assert error.message
    else:
        assert isinstance(ask, Ask) and 1 <= (ask.max_tokens or 1) <= 100 and 0 <= ask.min_tokens <= 100


@settings(max_examples=300, deadline=None)
@given(st.binary())
def test_any_bytes_that_decode_are_asked_or_refused(data: bytes) -> None:
    request = pb.GenerateRequest()
    try:
        request.ParseFromString(data)
    except DecodeError:
        return
    with suppress(HeadraceError):
        assert isinstance(validate(request, LIMITS), Ask)


def test_minus_zero_is_zero() -> None:
    request = pb.GenerateRequest(messages=[pb.Message(role=pb.ROLE_USER, content=[pb.Part(text="x")])])
    request.sampling.temperature = -0.0
    temperature = validate(request, LIMITS).sampling.temperature
    assert temperature is not None and str(temperature) == "0.0"


@given(st.integers(1, 99), st.integers(1, 5000))
def test_the_output_never_exceeds_the_room(prompt: int, default: int) -> None:
    ask = Ask(model="m", messages=())
    assert 1 <= fit(ask, prompt, 100, default) <= 100 - prompt
