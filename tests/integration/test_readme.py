"""What README shows is what happens."""

import ast
import asyncio
import re
import subprocess
import sys
from pathlib import Path

from services.client import Client, Message
from services.core.errors import HeadraceError
from services.gateway.boundary import CODES
from tests.support.gateway import running_gateway
from tests.support.scripted_engine import ScriptedEngine

ROOT = Path(__file__).parent.parent.parent
README = (ROOT / "README.md").read_text()
API = (ROOT / "services/api/README.md").read_text()
PYTHON = re.compile(r"```python\n(.*?)```", re.DOTALL)


async def test_the_python_example_streams_an_answer() -> None:
    [example] = PYTHON.findall(README)
    async with running_gateway(default_max_tokens=20) as endpoint:
        example = example.replace("127.0.0.1:50051", endpoint.address).replace("hr_local_...", endpoint.key)
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", example, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        output, errors = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0, errors.decode()
    assert len(output.decode().split()) > 3


async def test_the_example_with_tools_and_a_format_does_what_it_says() -> None:
    call = '<|channel|>commentary to=functions.weather <|constrain|>json<|message|>{"city": "Rome"}<|call|>'
    city = '<|channel|>final <|constrain|>json<|message|>{"name": "Rome"}<|return|>'
    example = PYTHON.findall(API)[-1]
    engine = ScriptedEngine([call, "<|channel|>final<|message|>No.<|return|>", city])
    gateway = running_gateway(model="gpt-oss-tiny", engine=engine)
    async with gateway as endpoint, Client(endpoint.address, endpoint.key) as client:
        names = {"client": client, "Message": Message}
        await eval(compile(example, "README.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT), names)
    assert names["asked"].message.calls[0].arguments == '{"city": "Rome"}'
    assert names["answer"].message.text == '{"name": "Rome"}'


def test_the_status_table_names_every_refusal() -> None:
    internal = {"OK", "INTERNAL", "CANCELLED"}
    codes = {CODES[kind.outcome].name for kind in HeadraceError.__subclasses__()} - internal
    assert codes == set(re.findall(r"^\| ([A-Z_]+) \|", README, re.MULTILINE))


def test_readme_is_short() -> None:
    assert README.count("\n") <= 200
