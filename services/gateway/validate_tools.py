"""Tools, the choice of them, and response formats: what may be asked for, and as what it is read."""

import re
from collections.abc import Iterator, Sequence
from typing import Any

from services.api.headrace.v1 import inference_pb2 as pb
from services.core.errors import Violation
from services.core.request import Choice, Format, Function, JsonSchema, Options, Regex, Schema
from services.gateway.schema import MAX_VALUES, BadSchema, read_schema, values

MAX_TOOLS = 128
MAX_TOOLS_BYTES = 256 << 10  # of all schemas and descriptions
MAX_DESCRIPTION_BYTES = 4096
MAX_REGEX_BYTES = 512
MAX_OPTIONS, MAX_OPTION_BYTES, MAX_OPTIONS_BYTES = 256, 256, 16 << 10

NAME = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)

CHOICES = {
    pb.ToolChoice.AUTO: Choice.AUTO,
    pb.ToolChoice.NONE: Choice.NONE,
    pb.ToolChoice.REQUIRED: Choice.REQUIRED,
}
Asked = pb.GenerateRequest | pb.CountTokensRequest


def check_tools(request: Asked) -> Iterator[Violation]:
    tools = list(request.tools)
    if len(tools) > MAX_TOOLS:
        yield Violation("tools", f"at most {MAX_TOOLS}; {len(tools)} were sent")
        return
    if (size := sum(tool.ByteSize() for tool in tools)) > MAX_TOOLS_BYTES:
        yield Violation("tools", f"at most {MAX_TOOLS_BYTES} bytes together; they have {size}")
        return
    names: set[str] = set()
    together = 0
    for i, tool in enumerate(tools):
        violations = list(_function(f"tools[{i}].function", tool, names))
        yield from violations
        if tool.function.parameters and not violations:
            together += values(read_schema(tool.function.parameters))
        if together > MAX_VALUES:
            yield Violation(
                "tools", f"the parameters have more than {MAX_VALUES} JSON values and keys together"
            )
            return
    yield from _choice(request.tool_choice, names)


def _function(field: str, tool: pb.Tool, names: set[str]) -> Iterator[Violation]:
    if tool.WhichOneof("tool") is None:
        yield Violation(field, "required: no other kind of tool is supported")
        return
    function = tool.function
    if not NAME.fullmatch(function.name):
        yield Violation(f"{field}.name", "1 to 64 of A-Z, a-z, 0-9, _ and -")
    elif function.name in names:
        yield Violation(f"{field}.name", "must be unique in the request")
    names.add(function.name)
    yield from _description(field, function.description)
    if function.parameters:
        yield from _schema(f"{field}.parameters", function.parameters, of_object=True)


def _choice(choice: pb.ToolChoice, names: set[str]) -> Iterator[Violation]:
    kind = choice.WhichOneof("choice")
    if kind == "function" and choice.function not in names:
        yield Violation("tool_choice.function", "must name one of tools")
    elif kind == "mode" and choice.mode not in CHOICES:
        yield Violation("tool_choice.mode", "one of AUTO, NONE, REQUIRED")
    elif kind == "mode" and choice.mode == pb.ToolChoice.REQUIRED and not names:
        yield Violation("tool_choice.mode", "REQUIRED needs tools")


def check_format(format: pb.ResponseFormat) -> Iterator[Violation]:
    kind = format.WhichOneof("format")
    if kind == "json_schema":
        field = "response_format.json_schema"
        if format.json_schema.name and not NAME.fullmatch(format.json_schema.name):
            yield Violation(f"{field}.name", "at most 64 of A-Z, a-z, 0-9, _ and -")
        yield from _description(field, format.json_schema.description)
        yield from _schema(f"{field}.schema", format.json_schema.schema)
    elif kind == "regex":
        yield from _regex(format.regex)
    elif kind == "options":
        yield from _options(format.options.options)


def _description(field: str, text: str) -> Iterator[Violation]:
    if (size := len(text.encode())) > MAX_DESCRIPTION_BYTES:
        yield Violation(f"{field}.description", f"at most {MAX_DESCRIPTION_BYTES} bytes; it has {size}")


def _schema(field: str, text: str, *, of_object: bool = False) -> Iterator[Violation]:
    try:
        schema = read_schema(text)
    except BadSchema as error:
        yield Violation(field, str(error))
        return
    if of_object and schema.get("type", "object") != "object":
        yield Violation(field, 'the type of parameters is "object"')


def _regex(pattern: str) -> Iterator[Violation]:
    field = "response_format.regex"
    if not 1 <= (size := len(pattern.encode())) <= MAX_REGEX_BYTES:
        yield Violation(field, f"1 to {MAX_REGEX_BYTES} bytes; it has {size}")
        return
    if "\\0" in pattern or "\0" in pattern:
        yield Violation(field, "has no place for NUL")
        return
    try:
        re.compile(pattern)
    except (re.error, RecursionError, OverflowError):
        yield Violation(field, "must be a regular expression")


def _options(options: Sequence[str]) -> Iterator[Violation]:
    field = "response_format.options.options"
    if not 1 <= len(options) <= MAX_OPTIONS:
        yield Violation(field, f"1 to {MAX_OPTIONS} strings; {len(options)} were sent")
        return
    for i, option in enumerate(options):
        if not 1 <= len(option.encode()) <= MAX_OPTION_BYTES:
            yield Violation(f"{field}[{i}]", f"1 to {MAX_OPTION_BYTES} bytes; it has {len(option.encode())}")
    if (size := sum(len(option.encode()) for option in options)) > MAX_OPTIONS_BYTES:
        yield Violation(field, f"at most {MAX_OPTIONS_BYTES} bytes together; they have {size}")
    if len(set(options)) < len(options):
        yield Violation(field, "must be different from one another")


def read_tools(request: Asked) -> dict[str, Any]:
    """Functions and choice. Of a function that has to be called, only that one."""
    functions = tuple(_read_function(tool.function) for tool in request.tools)
    choice = request.tool_choice
    if choice.WhichOneof("choice") == "function":
        named = tuple(f for f in functions if f.name == choice.function)
        return {"functions": named, "choice": Choice.REQUIRED}
    return {"functions": functions, "choice": CHOICES[choice.mode]}


def _read_function(function: pb.Function) -> Function:
    parameters: Schema | None = read_schema(function.parameters) if function.parameters else None
    return Function(function.name, function.description, parameters, function.strict, function.ByteSize())


def read_format(format: pb.ResponseFormat) -> Format | None:
    kind = format.WhichOneof("format")
    if kind == "json_schema":
        asked = format.json_schema
        return JsonSchema(read_schema(asked.schema), asked.name, asked.description)
    if kind == "regex":
        return Regex(format.regex)
    return Options(tuple(format.options.options)) if kind == "options" else None
