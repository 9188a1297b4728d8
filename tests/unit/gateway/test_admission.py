"""Slots: at most so many, of one tenant at most its share, and none after the close."""

from contextlib import ExitStack

import pytest

from services.core.errors import Draining, Full
from services.gateway.admission import Admission


def test_a_tenant_at_its_share_leaves_room_for_the_others() -> None:
    admission = Admission(4, share=3)
    with ExitStack() as held:
        for _ in range(3):
            held.enter_context(admission.slot("acme"))
        with pytest.raises(Full, match="3 turns for one tenant"), admission.slot("acme"):
            pass
        held.enter_context(admission.slot("globex"))
        with pytest.raises(Full, match="limit of 4"), admission.slot("globex"):
            pass
    assert admission.held == 0
    with admission.slot("acme"):
        pass


def test_a_turn_that_was_admitted_elsewhere_needs_no_room_and_no_open_gate() -> None:
    admission = Admission(1)
    admission.close()
    with pytest.raises(Draining), admission.slot("acme"):
        pass
    with admission.slot("acme", forced=True), admission.slot("acme", forced=True):
        assert admission.held == 2
