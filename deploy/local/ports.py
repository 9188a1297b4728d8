"""Ports that are kept for servers which have yet to start."""

import socket
from contextlib import ExitStack


def gateway_ports(first: int) -> tuple[int, int, int]:
    """Of the API, health and metrics; three times 0, for any that are free, if the first is 0."""
    return (first, first + 1, first + 2) if first else (0, 0, 0)


class Ports(ExitStack):
    """Keeps ports from the moment they are chosen until the block ends, or `close`.

    Ray's connections take dozens of ports of the same range before the gateway binds its three. A kept port is bound
    and does not listen: Linux then gives it to no connection and to no server that asks for any port, while the server
    that it is kept for binds it, since it sets SO_REUSEADDR as servers do.
    """

    def keep(self, port: int = 0) -> int:
        """The port, now kept on all IPv4 addresses; 0: any that is free. OSError if it is taken or may not be bound."""
        held = self.enter_context(socket.socket())
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(("", port))  # some of Ray's servers take all addresses
        return int(held.getsockname()[1])
