"""The error tree and the statuses stay complete."""

import grpc
import pytest
from google.rpc import error_details_pb2

from services.core import errors
from services.core.errors import Full, HeadraceError, InvalidRequest, Violation
from services.core.outcome import Outcome
from services.gateway.boundary import CODES, status_of


def leaves() -> list[type[HeadraceError]]:
    return HeadraceError.__subclasses__()


@pytest.mark.parametrize("kind", leaves(), ids=lambda kind: kind.__name__)
def test_every_error_has_an_outcome_a_status_and_a_line_in_the_tree(kind: type[HeadraceError]) -> None:
    code = CODES[kind.outcome]
    assert f"{kind.__name__:<20}{code.name}" in (errors.__doc__ or "")


def test_every_outcome_has_a_status() -> None:
    assert set(CODES) == set(Outcome)
    assert [outcome for outcome, code in CODES.items() if code is grpc.StatusCode.UNKNOWN] == []


def test_details_carry_reason_fields_and_delay() -> None:
    status = status_of(InvalidRequest(Violation("stop[1]", "empty")))
    info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    assert status.details[0].Unpack(info) and info.reason == "INVALID" and info.domain == "headrace"
    assert status.details[1].Unpack(bad) and bad.field_violations[0].field == "stop[1]"
    retry = error_details_pb2.RetryInfo()
    assert status_of(Full("busy")).details[1].Unpack(retry) and retry.retry_delay.seconds == 1


def test_a_status_stays_small_however_much_is_wrong() -> None:
    many = InvalidRequest(*(Violation(f"messages[{i}].role", "x" * 500) for i in range(1000)))
    assert len(status_of(many).SerializeToString()) < 6000
