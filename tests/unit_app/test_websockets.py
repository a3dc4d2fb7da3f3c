"""WebSockets, with the real uvicorn and a real client."""

import pytest

from tests.unit_app.serving import eventually

client = pytest.importorskip("websockets.sync.client")
exceptions = pytest.importorskip("websockets.exceptions")


def url(server):
    return f"ws://127.0.0.1:{server.port}/talk"


@pytest.mark.parametrize("kind", ["uvicorn", "uvicorn-2"])
def test_open_ones_count_and_go_on_and_new_ones_are_refused(serve, kind):
    server = serve(kind)
    with client.connect(url(server)) as talk:
        assert server.in_flight() == 1
        server.ask("POST", "/-/drain")
        talk.send("still there?")
        assert talk.recv(10) == "still there?"
        with pytest.raises(exceptions.InvalidStatus) as refused:
            client.connect(url(server))
        assert refused.value.response.status_code == 503
        assert refused.value.response.headers["Retry-After"] == "1"
        assert server.in_flight() == 1
    eventually(lambda: server.in_flight() == 0, "it is closed")


@pytest.mark.parametrize("kind", ["uvicorn", "uvicorn-2"])
def test_open_ones_are_closed_with_1012_where_that_is_wanted(serve, kind):
    server = serve(kind, APP_CLOSE="1")
    with client.connect(url(server)) as talk, client.connect(url(server)) as other:
        talk.send("before")
        assert talk.recv(10) == "before"
        server.ask("POST", "/-/drain")
        for each in (talk, other):
            with pytest.raises(exceptions.ConnectionClosed) as closed:
                each.recv(10)
            assert closed.value.rcvd.code == 1012
        eventually(lambda: server.in_flight() == 0, "both are closed")
    assert len(server.noted("closed-1012")) == 2


def test_one_that_fails_or_is_left_by_its_client_counts_no_longer(serve):
    server = serve("uvicorn")
    talk = client.connect(url(server))
    assert server.in_flight() == 1
    talk.socket.close()
    eventually(lambda: server.in_flight() == 0, "the client has gone")
