"""What keeping turns in Redis costs the gateway: CPU per token of this process, with the store and without.

python -m tests.load.journal      measures and writes the README's block

128 turns append one token each engine step, as a gateway's would; the server is another process. The two are
run in turn, so that what the machine does besides is in both.
"""

import asyncio
import statistics
import time
from contextlib import suppress
from dataclasses import dataclass

import uvloop

from services.core.clock import SystemClock
from services.core.events import Delta, Ending, FinishReason
from services.core.tasks import Tasks
from services.gateway.turn import Turn
from services.journal.recorder import Recorder, Recording
from services.journal.redis import RedisJournalStore
from services.store.cipher import AesGcm, Cipher, Plain, derive
from services.store.connect import connect
from tests.load.readme import LOAD, machine, table, write_block
from tests.support.turns import new_turn
from tests.support.valkey import running_valkey

TURNS = 128
STEP = 0.02  # seconds between the tokens of a turn: 6 400 tokens/s in all
TOKENS = 150
ROUNDS = 5
MASTER = bytes(32)


@dataclass(frozen=True, slots=True)
class Run:
    cpu: float  # us of this process per token
    lag: float  # ms that a step came late, median


def sealed(tenant: str, turn: str) -> Cipher:
    return AesGcm(derive(MASTER, "journal", tenant, turn))


def plain(tenant: str, turn: str) -> Cipher:
    return Plain()


async def steps(turns: list[Turn]) -> Run:
    """All turns append a token every step."""
    loop, lags = asyncio.get_running_loop(), []
    begun, cpu = loop.time(), time.process_time()
    for step in range(TOKENS):
        await asyncio.sleep(max(0.0, begun + step * STEP - loop.time()))
        lags.append(loop.time() - begun - step * STEP)
        for turn in turns:
            turn.append(Delta(" token", [1000 + step]))
    return Run((time.process_time() - cpu) / (TOKENS * len(turns)) * 1e6, statistics.median(lags) * 1e3)


async def without() -> Run:
    turns = [new_turn() for _ in range(TURNS)]
    for turn in turns:
        turn.start(10)
    return await steps(turns)


async def kept(url: str, ciphers: object) -> Run:
    client = connect(url)
    store = RedisJournalStore(client, ciphers)  # type: ignore[arg-type]
    recorder, tasks = Recorder(store, SystemClock()), Tasks(lambda name, error: None)
    turns = [new_turn(f"turn_{i:032x}") for i in range(TURNS)]
    for turn in turns:
        record = turn.record("bench", b"request", 60.0)
        await store.create(record())
        recorder.follow(Recording(record, turn.journal, False, turn.hear, lambda size: None, turn.seen))
        turn.start(10)
    tasks.start(recorder.run(), "recorder")
    measured = await steps(turns)
    for turn in turns:
        turn.finish((Ending(FinishReason.STOP),), 0)
    while len(recorder):
        await asyncio.sleep(0.01)
    await tasks.close()
    await client.aclose()
    return measured


def least(runs: list[Run]) -> Run:
    return Run(statistics.median(run.cpu for run in runs), statistics.median(run.lag for run in runs))


def main() -> None:
    rows: dict[str, list[Run]] = {"in memory only": [], "kept in Valkey": [], "kept, encrypted": []}
    with running_valkey() as server, suppress(KeyboardInterrupt):
        for _ in range(ROUNDS):
            rows["in memory only"].append(uvloop.run(without()))
            rows["kept in Valkey"].append(uvloop.run(kept(server.url, plain)))
            rows["kept, encrypted"].append(uvloop.run(kept(server.url, sealed)))
    base = least(rows["in memory only"])
    written = [
        [name, f"{(run := least(runs)).cpu:.1f}", f"{run.cpu - base.cpu:.1f}", f"{run.lag:.2f}"]
        for name, runs in rows.items()
    ]
    lines = [
        f"Measured by `make bench-journal` on {machine()}; {TURNS} turns, a token each every {STEP * 1e3:g} ms, "
        f"median of {ROUNDS} runs.",
        "",
    ]
    columns = ("journals", "CPU us/token", "more than in memory", "median lateness of a step, ms")
    text = "\n".join(lines + table(columns, written))
    print(text)
    write_block("journal", text, LOAD)


if __name__ == "__main__":
    main()
