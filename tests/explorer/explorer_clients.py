"""Bare clients of the explorer, good and bad."""

import json


def listen(world, **options):
    """A bare WebSocket to a world."""
    from websockets.sync.client import connect

    url = f"{world.server.base.replace('http', 'ws', 1)}{world.path}/live"
    return connect(url, compression=None, **options)


def answers(connection, kind: str, timeout: float = 20.0) -> dict:
    """The next JSON message of a kind."""
    while True:
        message = connection.recv(timeout)
        if isinstance(message, str) and (news := json.loads(message))["type"] == kind:
            return news
