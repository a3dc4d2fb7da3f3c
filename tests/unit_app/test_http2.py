"""HTTP/2: many requests on one connection, each of them counted and none of them cut."""

import socket

from tests.http2_client import Http2Client
from tests.unit_app.serving import eventually


def test_each_stream_of_an_http2_connection_is_a_request_in_flight(serve):
    server = serve("hypercorn")
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connected:
        client = Http2Client(connected)
        slow = [client.ask("/wait") for _ in range(7)]
        eventually(lambda: len(server.noted("/wait")) == 7, "all have come to the application")
        assert server.in_flight() == 7
        client.read_until_answered(client.ask("/quick"))
        assert server.in_flight() == 7
        server.release.touch()
        for stream in slow:
            client.read_until_answered(stream)
        eventually(lambda: server.in_flight() == 0, "all are over")


def test_on_the_flag_running_streams_finish_and_new_ones_are_refused(serve):
    server = serve("hypercorn")
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connected:
        client = Http2Client(connected)
        slow = client.ask("/wait")
        eventually(lambda: server.noted("/wait"), "it has come to the application")
        assert server.ask("POST", "/-/drain")[0] in (200, 202)
        refused = client.ask("/quick")
        client.read_until_answered(refused)
        assert client.headers[refused][":status"] == "503"
        assert client.headers[refused]["retry-after"] == "1"
        assert "connection" not in client.headers[refused]  # forbidden in HTTP/2
        server.release.touch()
        client.read_until_answered(slow)
        assert client.headers[slow][":status"] == "200"
