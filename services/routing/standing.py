"""Outlier ejection: a replica whose turns fail one after the other, or crawl, gets no new ones for a while."""

from collections import OrderedDict
from collections.abc import Collection
from dataclasses import dataclass
from statistics import median
from typing import Protocol

FAILURES = 3  # in a row
FIRST_BAN, LAST_BAN = 1.0, 30.0  # seconds
FORGIVEN_AFTER = 60.0  # seconds without an ejection; the next one is short again
CRAWL = 3.0  # times the pace of the others
CRAWL_PACE = 0.05  # seconds a token; what is faster is never too slow
REMEMBERED = 1024  # replicas


class Peer(Protocol):
    @property
    def name(self) -> str: ...

    @property
    def pace(self) -> float: ...


@dataclass(slots=True)
class Standing:
    failures: int = 0  # in a row
    ban: float = 0.0  # seconds of the last ejection
    until: float = float("-inf")  # when it ended or ends


class Standings:
    """What became of the turns on each replica. Names are unique for each start of one, so a restarted replica
    begins anew. At most half of a model's replicas are out at a time."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, Standing] = OrderedDict()

    def ejected(self, name: str, now: float) -> bool:
        return now < self.back_at(name)

    def back_at(self, name: str) -> float:
        """When its last ejection ends or ended; minus infinity without one."""
        return self._known[name].until if name in self._known else float("-inf")

    def failed(self, peer: Peer, peers: Collection[Peer], now: float) -> bool:
        """A turn ended because of the replica; says whether that ejects it. `peers` are its model's replicas."""
        standing = self._standing(peer.name)
        if now < standing.until:  # begun before the ejection
            return False
        standing.failures += 1
        return standing.failures >= FAILURES and self._eject(standing, peers, now)

    def served(self, peer: Peer, peers: Collection[Peer], now: float) -> bool:
        """A turn ended well; says whether the replica is ejected for its slowness."""
        standing = self._standing(peer.name)
        standing.failures = 0
        return crawls(peer, peers) and self._eject(standing, peers, now)

    def _eject(self, standing: Standing, peers: Collection[Peer], now: float) -> bool:
        out = sum(self.ejected(peer.name, now) for peer in peers)
        if now < standing.until or 2 * (out + 1) > len(peers):
            return False
        forgiven = now - standing.until > FORGIVEN_AFTER
        standing.ban = FIRST_BAN if forgiven else min(2 * standing.ban, LAST_BAN)
        standing.until, standing.failures = now + standing.ban, 0
        return True

    def _standing(self, name: str) -> Standing:
        standing = self._known.setdefault(name, Standing())
        self._known.move_to_end(name)
        if len(self._known) > REMEMBERED:
            self._known.popitem(last=False)
        return standing


def crawls(peer: Peer, peers: Collection[Peer]) -> bool:
    """Whether it is much slower than the others."""
    others = [other.pace for other in peers if other.name != peer.name and other.pace > 0]
    return bool(others) and peer.pace > max(CRAWL * median(others), CRAWL_PACE)
