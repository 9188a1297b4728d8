"""All dashboards, each in the order of an operator's questions: is it up, is it fast, what limits it, who uses it."""

from deploy.observability.callers import FLEET, OF_ONE, OF_TENANT
from deploy.observability.machinery import ENGINE, STORE

ALL = (FLEET, OF_ONE, OF_TENANT, ENGINE, STORE)
