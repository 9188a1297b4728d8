"""The store of turns against a model of a few lines, with calls repeated, replies lost and writers that are late."""

from dataclasses import dataclass, field
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from services.core.errors import Cancelled
from services.core.events import Delta, Event, Failed
from services.journal.memory_store import MemoryJournalStore
from services.journal.port import Batch, Claim, Record, Verdict
from tests.support.clock import FakeClock

TURNS = [f"turn_{digit}" for digit in "abc"]
GATEWAYS = ["one", "two", "three"]
LIFE, KEEP = 50.0, 20.0  # seconds to the deadline, and after the end


def done(work: Any) -> Any:
    """The result of a coroutine that never waits."""
    try:
        work.send(None)
    except StopIteration as end:
        return end.value
    raise AssertionError("it waits")


@dataclass
class Model:
    gateway: str
    epoch: int = 0
    before: str = ""
    events: list[Event] = field(default_factory=list)
    ended: bool = False
    cancelled: bool = False


class StoreMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.store = MemoryJournalStore(FakeClock())
        self.model: dict[str, Model] = {}
        self.claims: dict[str, str] = {}
        self.sent: list[Batch] = []

    @rule(turn=st.sampled_from(TURNS), gateway=st.sampled_from(GATEWAYS), key=st.sampled_from(["", "k", "l"]))
    def create(self, turn: str, gateway: str, key: str) -> None:
        claim = Claim(key, "digest", 1000.0) if key else None
        holder = done(self.store.create(Record(turn, "acme", gateway, 0, b"", LIFE, KEEP, claim)))
        expected = self.claims.get(key, turn) if key else turn
        assert holder == expected
        if holder == turn:
            self.model.setdefault(turn, Model(gateway))
            if key:
                self.claims[key] = turn

    @rule(turn=st.sampled_from(TURNS), count=st.integers(0, 3), back=st.integers(-1, 3), stale=st.booleans())
    def append(self, turn: str, count: int, back: int, stale: bool) -> None:
        """From where the store is, or from before or beyond it; by the writer, or one from before a takeover."""
        model = self.model.get(turn)
        first = max(1, (len(model.events) if model else 0) + 1 - back)
        events: list[Event] = [Delta(f"{first + i}", [first + i]) for i in range(count)]
        epoch = (model.epoch if model else 0) - stale
        self._append(Batch(turn, "acme", epoch, first, events, False, KEEP))

    @rule(turn=st.sampled_from(TURNS))
    def end(self, turn: str) -> None:
        model = self.model.get(turn)
        if model is not None and not model.ended:
            first = len(model.events) + 1
            failed: list[Event] = [Failed(Cancelled("over"))]
            self._append(Batch(turn, "acme", model.epoch, first, failed, True, KEEP))

    @rule(data=st.data())
    def append_again(self, data: st.DataObject) -> None:
        """The reply was lost, or the call was late."""
        if self.sent:
            self._append(data.draw(st.sampled_from(self.sent)))

    def _append(self, batch: Batch) -> None:
        [reply] = done(self.store.append([batch]))
        self.sent.append(batch)
        model = self.model.get(batch.turn)
        if model is None:
            assert reply.verdict is Verdict.GONE
            return
        last, seq = batch.first + len(batch.events) - 1, len(model.events)
        if batch.epoch != model.epoch:
            assert reply.verdict is Verdict.FENCED
        elif last > seq and batch.first != seq + 1:
            assert reply.verdict is Verdict.REALIGN
        else:
            assert reply.verdict is (Verdict.CANCELLED if model.cancelled else Verdict.KEPT)
            if last > seq:
                model.events += batch.events
                model.ended = model.ended or batch.ended
        assert reply.seq == len(model.events)

    @rule(turn=st.sampled_from(TURNS), owner=st.sampled_from(GATEWAYS), gateway=st.sampled_from(GATEWAYS))
    def take(self, turn: str, owner: str, gateway: str) -> None:
        stored, model = done(self.store.take(turn, owner, gateway)), self.model.get(turn)
        if model is None or model.ended:
            assert stored is None
            return
        again = owner != gateway and (model.gateway, model.before) == (gateway, owner)
        if model.gateway != owner and not again:
            assert stored is None
            return
        if not again:
            model.gateway, model.before, model.epoch = gateway, owner, model.epoch + 1
        assert (stored.record.gateway, stored.record.epoch, stored.seq) == (
            gateway,
            model.epoch,
            len(model.events),
        )

    @rule(turn=st.sampled_from(TURNS))
    def cancel(self, turn: str) -> None:
        done(self.store.cancel(turn))
        if (model := self.model.get(turn)) is not None and not model.ended:
            model.cancelled = True

    @invariant()
    def what_is_read_is_what_was_kept(self) -> None:
        for turn, model in self.model.items():
            for after in (0, len(model.events) // 2):
                entries = [e for page in done(self.store.read(turn, "acme", after)) for e in page.entries]
                assert [e.seq for e in entries] == list(range(after + 1, len(model.events) + 1))
                kept = [(type(event), getattr(event, "text", "")) for event in model.events[after:]]
                assert [(type(e.event), getattr(e.event, "text", "")) for e in entries] == kept

    @invariant()
    def a_running_turn_has_one_owner_who_can_be_found(self) -> None:
        for gateway in GATEWAYS:
            mine = {turn for turn, m in self.model.items() if m.gateway == gateway and not m.ended}
            if mine:
                assert set(done(self.store.orphans(gateway))) == mine
                assert gateway in done(self.store.lapsed())


TestStore = StoreMachine.TestCase
TestStore.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
