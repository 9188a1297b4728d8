"""Python SDK of Headrace: async, typed, streams that survive their connection."""

from services.client.client import Client, Model, Replica, Scaling, ScalingChange
from services.client.endpoints import Tls
from services.client.errors import HeadraceError, Violation
from services.client.events import (
    Delta,
    Ending,
    Event,
    Finished,
    Logprob,
    ReasoningDelta,
    Rewind,
    Started,
    ToolCallDelta,
    Usage,
    Used,
    Waiting,
)
from services.client.messages import JsonSchema, Message, Options, Regex, Sampling, Tool, ToolCall
from services.client.retry import Resume
from services.client.sessions import Exported, Session, SessionTurn, Summary
from services.client.stream import Stream
from services.client.turns import Answer, Choice, Turn

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
    "Resume",
    "Rewind",
    "Sampling",
    "Scaling",
    "ScalingChange",
    "Session",
    "SessionTurn",
    "Started",
    "Stream",
    "Summary",
    "Tls",
    "Tool",
    "ToolCall",
    "ToolCallDelta",
    "Turn",
    "Usage",
    "Used",
    "Violation",
    "Waiting",
]
