"""An answer on the terminal: its text goes to stdout, what is said about it to stderr."""

import sys

from services.cli.output import safe
from services.client import Delta, Event, Finished, ReasoningDelta, Rewind, Stream, Waiting

DIM = "\x1b[2m{}\x1b[0m"
REMARKS = {
    "length": "[cut at the token limit]",
    "malformed": "[the model broke its own format; this is what could be read]",
}
WAITS = {
    "no_replica": "[no replica is up yet; waiting for one]",
    "full": "[every replica is at its capacity; waiting for one]",
}


async def tell(stream: Stream, shown: list[str]) -> None:
    """Shows the stream to its end; its text is in `shown`, also if it breaks off."""
    resumed = waited = False
    async with stream:
        async for event in stream:
            if stream.resumes and not resumed:
                resumed = True
                _aside("[connection lost, resumed]")
            if isinstance(event, Waiting) and not waited:
                waited = True
                print(_dim(WAITS[event.reason]), file=sys.stderr, flush=True)
            if isinstance(event, Delta):
                shown.append(event.text)
            elif isinstance(event, Rewind):
                shown[:] = [event.answers[0].text]
            _show(event)


def _show(event: Event) -> None:
    if isinstance(event, Delta):
        _say(event.text)
    elif isinstance(event, ReasoningDelta):
        sys.stderr.write(_dim(safe(event.text)))
        sys.stderr.flush()
    elif isinstance(event, Rewind):
        # What was printed cannot be taken back.
        _aside("[what was lost came out differently; the answer from its beginning:]")
        _say(event.answers[0].text)
    elif isinstance(event, Finished):
        print()
        if event.reason in REMARKS:
            print(REMARKS[event.reason], file=sys.stderr)


def _say(text: str) -> None:
    sys.stdout.write(safe(text))
    sys.stdout.flush()


def _aside(remark: str) -> None:
    print(_dim(f"\n{remark}"), file=sys.stderr, flush=True)


def _dim(text: str) -> str:
    return DIM.format(text) if sys.stderr.isatty() else text
