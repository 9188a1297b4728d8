"""Exit codes of the command, and the exception that carries one: a user's trouble is one line, no traceback."""

from typing import NoReturn

OK = 0
FAILED = 1  # it was tried and did not work
USAGE = 2  # the command line or the settings are wrong
UNREACHABLE = 3  # no endpoint is known, or it does not answer, or no replica lives
REFUSED = 4  # the endpoint refused the request: key, model, session, input
BUSY = 5  # the endpoint is full or over quota: try again later
INTERRUPTED = 130

TABLE = """\
Exit codes: 0 ok; 1 failed; 2 wrong usage or settings; 3 endpoint unreachable or without a replica;
4 refused (key, model, session, input); 5 busy, try again later; 130 interrupted."""


class CliError(Exception):
    """What went wrong and what to do about it."""

    def __init__(self, what: str, do: str = "", *, code: int = FAILED) -> None:
        super().__init__(what)
        self.what, self.do, self.code = what, do, code

    def __str__(self) -> str:
        return f"{self.what}. {self.do}" if self.do else self.what


def stop(what: str, do: str = "", *, code: int = FAILED) -> NoReturn:
    raise CliError(what, do, code=code)
