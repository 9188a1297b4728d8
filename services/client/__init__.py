"""Python SDK of Headrace: async, typed, one channel per client."""

from services.client.client import Answer, Choice, Client, Model, Replica, Tls
from services.client.errors import HeadraceError, Violation
from services.client.events import (
    Delta,
    Ending,
    Event,
    Finished,
    Logprob,
    ReasoningDelta,
    Started,
    ToolCallDelta,
    Usage,
    Used,
)
from services.client.messages import JsonSchema, Message, Options, Regex, Sampling, Tool, ToolCall
from services.client.sessions import Exported, Session, SessionTurn, Summary
from services.client.stream import Stream

__all__ = [
    "Answer",
    "Choice",
    "Client",
    "Delta",
    "Ending",
    "Event",
    "Exported",
    "Finished",
    "HeadraceError",
    "JsonSchema",
    "Logprob",
    "Message",
    "Model",
    "Options",
    "ReasoningDelta",
    "Regex",
    "Replica",
    "Sampling",
    "Session",
    "SessionTurn",
    "Started",
    "Stream",
    "Summary",
    "Tls",
    "Tool",
    "ToolCall",
    "ToolCallDelta",
    "Usage",
    "Used",
    "Violation",
]
