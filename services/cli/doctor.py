"""`headrace doctor`."""

import os
from dataclasses import asdict

import typer

from deploy.local import doctor, readings
from deploy.local.home import Home
from deploy.local.ports import gateway_ports
from services.cli import output, where
from services.cli.exits import FAILED


def show(port: int, *, as_json: bool) -> None:
    home = Home.of(os.environ)
    stack = where.load_stack(home)
    # The ports of a running stack are taken by itself.
    ports = () if stack else gateway_ports(port)
    checks = doctor.examine(readings.read(home, ports, stack.id if stack else None))
    if as_json:
        output.as_json([asdict(check) for check in checks])
    else:
        output.table(
            ("CHECK", "VERDICT", "FOUND", "WHAT TO DO"),
            ((c.name, c.verdict, c.found, c.advice) for c in checks),
        )
    if any(check.verdict == "fail" for check in checks):
        raise typer.Exit(FAILED)
