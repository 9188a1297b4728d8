"""Python SDK of Headrace: async, typed, one channel per client."""

from services.client.client import Answer, Client, Model, Replica, Tls
from services.client.errors import HeadraceError, Violation
from services.client.events import Delta, Event, Finished, Started, Usage, Used
from services.client.messages import Message, Sampling
from services.client.sessions import Session
from services.client.stream import Stream

__all__ = [
    "Answer",
    "Client",
    "Delta",
    "Event",
    "Finished",
    "HeadraceError",
    "Message",
    "Model",
    "Replica",
    "Sampling",
    "Session",
    "Started",
    "Stream",
    "Tls",
    "Usage",
    "Used",
    "Violation",
]
