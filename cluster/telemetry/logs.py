"""Logs of replicas and shard hosts: a line of JSON each on stderr, as the gateway's. Ids and figures, never content."""

import json
import logging
import sys
from datetime import UTC, datetime

# Its debug and info lines show requests.
QUIET = ("vllm", "ray", "grpc", "asyncio")


class Json(logging.Formatter):
    """`turn`, `trace_id` and `span_id` are told where a record has them, given by `extra`."""

    def format(self, record: logging.LogRecord) -> str:
        when = datetime.fromtimestamp(record.created, UTC).isoformat().replace("+00:00", "Z")
        line = {
            "event": record.getMessage(),
            "level": record.levelname.lower(),
            "timestamp": when,
            "logger": record.name,
            "process": record.process,
        }
        line |= {name: value for name in EXTRAS if (value := getattr(record, name, ""))}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)


EXTRAS = ("turn", "trace_id", "span_id")


def configure(level: str = "INFO") -> None:
    """The handler of our own loggers, whatever Ray has done to the root's."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Json())
    ours = logging.getLogger("cluster")
    ours.handlers, ours.propagate = [handler], False
    ours.setLevel(level)
    for name in QUIET:
        logging.getLogger(name).setLevel(max(logging.WARNING, logging.getLogger(name).level))
