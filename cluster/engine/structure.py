"""Structural tags checked before a grammar compiler sees them.

A grammar can be small to write and endless to compile, or so ambiguous that every step of the engine
waits for it, and neither can be interrupted. So what an engine takes is bounded by its form: known formats,
counts and sizes below the limits here. A keyword that xgrammar would ignore is refused too: the output
would not follow the schema.
"""

import json
from collections.abc import Iterable, Iterator
from typing import Any

from cluster.engine.port import RequestRejected

MAX_DEPTH = 64
MAX_NODES = 4096
MAX_COUNT = 1000
MAX_PRODUCT = 10_000
MAX_PATTERN = 1024

FORMATS = {
    "sequence": {"elements"},
    "or": {"elements"},
    "optional": {"content"},
    "const_string": {"value"},
    "token": {"token"},
    "any_tokens": {"exclude_tokens", "max_tokens"},
    "any_text": {"excludes", "max_tokens"},
    "json_schema": {"json_schema", "max_whitespace_cnt"},
    "regex": {"pattern"},
}
