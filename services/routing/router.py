"""Chooses the replica for a turn: where its KV cache is likely to be, as long as that one is not busier than others."""

import hashlib
from collections import OrderedDict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Generic

from services.routing.load import (
    C,
    Candidate,
    bounds,
    has_room,
    least_wait,
    predicted_wait,
    warmth,
)
from services.routing.prefix import Prefixes
from services.routing.rendezvous import ranked
from services.routing.standing import Standings

PATIENCE = 0.5  # seconds that a turn may wait longer for the sake of a cache
SESSIONS = 16_384  # whose last replica is remembered


class Reason(StrEnum):
    SESSION = "session"  # the replica of the session's last turn, or its home
    PREFIX = "prefix"  # the home of the prompt's beginning
    SPILL = "spill"  # that one is too busy; the next in rank
    LEAST_WAIT = "least_wait"  # nothing is likely to be cached anywhere, or all of the rank is too busy
    LAST_RESORT = "last_resort"  # ejected, but no other has room


@dataclass(frozen=True, slots=True)
class Wish:
    """What a turn would like to find in a cache. `key` is None if there is too little to find."""

    key: bytes | None = None
    session: bool = False


@dataclass(frozen=True, slots=True)
class Choice(Generic[C]):
    replica: C
    reason: Reason


class Router:
    """Routing of one gateway; gateways agree without talking, as far as the same things were seen. Times are
    seconds of the monotonic clock that the candidates use."""

    def __init__(self) -> None:
        self._prefixes = Prefixes()
        self._standings = Standings()
        self._last: OrderedDict[bytes, str] = OrderedDict()

    def wish(self, salt: str, prompt: Sequence[int], session: str | None) -> Wish:
        """Call it once for each turn: it learns from the prompt. Keys of two salts are never the same."""
        if session is None:
            return Wish(self._prefixes.key(salt, prompt))
        return Wish(hashlib.blake2b(f"{salt} {session}".encode(), digest_size=16).digest(), session=True)

    def choose(self, replicas: Collection[C], wish: Wish, now: float) -> Choice[C] | None:
        """None if every replica is full, not ready, or was not heard of lately."""
        roomy = [replica for replica in replicas if has_room(replica, now)]
        standing = [r for r in roomy if not self._standings.ejected(r.name, now)]
        if not standing:
            return Choice(least_wait(roomy), Reason.LAST_RESORT) if roomy else None
        choice = self._choose(standing, wish, now)
        if wish.session and wish.key is not None:
            self._remember(wish.key, choice.replica.name)
        return choice

    def failed(self, replica: Candidate, peers: Collection[Candidate], now: float) -> bool:
        """A turn ended because of the replica; says whether it is ejected. `peers` are all of its model."""
        return self._standings.failed(replica, peers, now)

    def served(self, replica: Candidate, peers: Collection[Candidate], now: float) -> bool:
        """A turn ended well; says whether the replica is ejected because it is much slower than the others."""
        return self._standings.served(replica, peers, now)

    def _choose(self, replicas: Sequence[C], wish: Wish, now: float) -> Choice[C]:
        free = {replica.name: replica for replica in self._free(replicas, now)}
        if wish.key is not None:
            for place, name in enumerate(self._rank(wish.key, [r.name for r in replicas])):
                if name in free:
                    wanted = Reason.SESSION if wish.session else Reason.PREFIX
                    return Choice(free[name], Reason.SPILL if place else wanted)
        return Choice(least_wait(list(free.values()) or replicas), Reason.LEAST_WAIT)

    def _free(self, replicas: Sequence[C], now: float) -> list[C]:
        """Those below their bounds. A cold one has a low bound, or its emptiness would draw every turn."""
        warm = {r.name: warmth(max(r.up_at, self._standings.back_at(r.name)), now) for r in replicas}
        limits = bounds(replicas, warm)
        free = [replica for replica in replicas if replica.turns < limits[replica.name]]
        worth = min((predicted_wait(replica) for replica in free), default=0.0) + PATIENCE
        return [replica for replica in free if predicted_wait(replica) <= worth]

    def _rank(self, key: bytes, names: Sequence[str]) -> list[str]:
        rank, last = ranked(key, names), self._last.get(key)
        return rank if last not in rank else [last, *(name for name in rank if name != last)]

    def _remember(self, key: bytes, name: str) -> None:
        self._last[key] = name
        self._last.move_to_end(key)
        if len(self._last) > SESSIONS:
            self._last.popitem(last=False)
