"""A port on loopback for processes that are told theirs when they are started."""

import secrets
import socket

#: Below those that Linux gives to whoever asks for any port, which other processes do all the time.
_FIRST, _BEYOND = 10_000, 32_768


def free_port() -> int:
    """A port that nobody listens on at this moment; whoever is started next should take it at once."""
    for _ in range(100):
        port = _FIRST + secrets.randbelow(_BEYOND - _FIRST)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
