"""What the server answers when it refuses: a Status object with its reason and causes."""

from typing import Any

from tests.chart.apiserver.kinds import Kind

Object = dict[str, Any]
CODES = {
    "BadRequest": 400,
    "Unauthorized": 401,
    "Forbidden": 403,
    "NotFound": 404,
    "MethodNotAllowed": 405,
    "Conflict": 409,
    "AlreadyExists": 409,
    "Expired": 410,
    "UnsupportedMediaType": 415,
    "Invalid": 422,
    "TooManyRequests": 429,
}


class Failure(Exception):
    """Raised anywhere below a request; the server turns it into the answer."""

    def __init__(
        self,
        reason: str,
        message: str,
        kind: Kind | None = None,
        name: str = "",
        causes: list[dict[str, str]] | None = None,
    ) -> None:
        super().__init__(message)
        self.reason, self.message, self.kind, self.name = reason, message, kind, name
        self.causes = causes or []

    @property
    def code(self) -> int:
        return CODES[self.reason]

    def status(self) -> Object:
        details: Object = {"name": self.name} if self.name else {}
        if self.kind is not None:
            details |= {"group": self.kind.group, "kind": self.kind.plural}
        if self.causes:
            details["causes"] = self.causes
        return {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
            "details": details,
            "code": self.code,
        }


def not_found(kind: Kind, name: str) -> Failure:
    return Failure("NotFound", f'{kind.resource} "{name}" not found', kind, name)


def invalid(kind: Kind, name: str, field: str, problem: str) -> Failure:
    causes = [{"reason": "FieldValueInvalid", "message": problem, "field": field}]
    said = f'{kind.kind}.{kind.group} "{name}" is invalid: {field}: {problem}'
    return Failure("Invalid", said, kind, name, causes)
