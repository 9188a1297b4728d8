"""Names by which a model is known outside: to Serve, in Redis."""


def slug(model: str) -> str:
    """A model name as Serve, Redis keys and logs take it."""
    return "".join(c if c.isalnum() or c in "-_." else "-" for c in model)


def decision_key(model: str) -> str:
    """JSON of the autoscaler's last decision; it expires a minute after the last word."""
    return f"headrace:scaling:{slug(model)}"


def log_key(model: str) -> str:
    """List of the last changes, newest first, each as JSON."""
    return f"{decision_key(model)}:log"


def held_key(model: str) -> str:
    """Hash of gateway to JSON: `held` and lately `refused` turns, and `at_ms` by its clock."""
    return f"headrace:held:{model}"
