"""An HTTP/2 client on a connected socket."""

from __future__ import annotations

import socket
from collections.abc import Callable

from h2.connection import H2Connection
from h2.events import ResponseReceived, SettingsAcknowledged, StreamEnded


class Http2Client:
    """One HTTP/2 connection with prior knowledge."""

    def __init__(self, connected: socket.socket) -> None:
        self.connected, self.state = connected, H2Connection()
        self.acknowledged = False
        self.ended = list[int]()
        self.headers = dict[int, dict[str, str]]()  # of the answers, by stream
        self.state.initiate_connection()
        self.flush()
        self._read_until(lambda: self.acknowledged)

    def flush(self) -> None:
        self.connected.sendall(self.state.data_to_send())

    def ask(self, path: str) -> int:
        stream: int = self.state.get_next_available_stream_id()
        headers = {":method": "GET", ":path": path, ":scheme": "http", ":authority": "here"}
        self.state.send_headers(stream, list(headers.items()), end_stream=True)
        self.flush()
        return stream

    def read_until_answered(self, stream: int) -> None:
        self._read_until(lambda: stream in self.ended)

    def _read_until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            for event in self.state.receive_data(self.connected.recv(65536)):
                self.acknowledged |= isinstance(event, SettingsAcknowledged)
                if isinstance(event, ResponseReceived):
                    pairs = ((bytes(name).decode(), bytes(value).decode()) for name, value in event.headers)
                    self.headers[event.stream_id] = dict(pairs)
                if isinstance(event, StreamEnded):
                    self.ended.append(event.stream_id)
            self.flush()
