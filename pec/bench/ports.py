"""A port on loopback for processes that are told theirs when they are started."""

import socket


def free_port() -> int:
    """A port that nobody listens on at this moment; whoever is started next should take it at once."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
