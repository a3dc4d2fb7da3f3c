"""Real servers with one and with several processes: what runs finishes, what comes later is refused, the count is true."""

import http.client
import signal
import socket

import pytest

from tests.unit_app.serving import eventually, is_closed, refused_as_promised

SEVERAL = ["uvicorn-2", "sync-4", "gthread-4", "preload-4"]


def test_work_in_flight_finishes_and_new_work_is_refused(server):
    waiting = [server.begin("/wait") for _ in range(1 if server.kind == "uvicorn" else 3)]
    assert server.in_flight() == len(waiting)
    status, state = server.ask("POST", "/-/drain")
    assert (status, state["draining"], state["in_flight"]) == (202, True, len(waiting))
    for _ in range(8):  # whichever process it comes to
        late = server.connect()
        late.request("GET", "/hello")
        assert refused_as_promised(late.getresponse())
        assert is_closed(late)
    assert server.ask("GET", "/-/health/ready")[0] == 503
    assert server.ask("GET", "/-/health/live")[0] == 200
    server.release.touch()
    for connection in waiting:
        answer = connection.getresponse()
        assert (answer.status, answer.read()[:4]) == (200, b"done")
        assert answer.getheader("Connection").lower() == "close"
        assert is_closed(connection)
    eventually(lambda: server.in_flight() == 0, "nothing is in flight")
    assert server.noted("/hello") == []


def test_undrain_serves_again(server):
    server.ask("POST", "/-/drain")
    status, state = server.ask("POST", "/-/undrain")
    assert (status, state["draining"]) == (200, False)
    for _ in range(8):
        connection = server.connect()
        connection.request("GET", "/hello")
        assert connection.getresponse().status == 200
    assert server.ask("GET", "/-/health/ready")[0] == 200


@pytest.mark.parametrize("kind", ["uvicorn", "gthread-4"])
def test_a_kept_connection_is_closed_with_its_next_answer(serve, kind):
    server = serve(kind)
    idle = server.connect()
    idle.request("GET", "/hello")
    first = idle.getresponse()
    assert first.read().startswith(b"done")
    assert first.getheader("Connection", "keep-alive").lower() == "keep-alive"
    assert idle.sock is not None
    server.ask("POST", "/-/drain")
    idle.request("GET", "/hello")
    assert refused_as_promised(idle.getresponse())
    assert is_closed(idle)


def test_a_streaming_answer_counts_until_its_end(server):
    streaming = server.begin("/stream")
    answer = streaming.getresponse()
    assert answer.readline() == b"first\n"
    server.ask("POST", "/-/drain")
    assert server.in_flight() == 1
    server.release.touch()
    assert answer.read().startswith(b"done")
    eventually(lambda: server.in_flight() == 0, "the stream has ended")


def test_a_client_that_goes_in_the_middle_counts_no_longer(server):
    ticking = server.begin("/ticks")
    assert ticking.getresponse().readline() == b"tick\n"
    assert server.in_flight() == 1
    ticking.leave()
    eventually(lambda: server.in_flight() == 0, "the client has gone")


@pytest.mark.parametrize("path", ["/fail", "/fail-late"])
def test_an_application_that_fails_leaves_no_count(server, path):
    server.release.touch()
    failing = server.begin(path)
    try:
        failing.getresponse().read()
    except http.client.HTTPException:
        assert path == "/fail-late"
    eventually(lambda: server.in_flight() == 0, "nothing is in flight")


@pytest.mark.parametrize("kind", SEVERAL)
def test_what_a_killed_worker_had_in_flight_counts_no_longer(serve, kind):
    server = serve(kind)
    for _ in range(2):
        server.begin("/wait")
    server.ask("POST", "/-/drain")
    pids = server.noted("/wait")
    server.kill(pids[0])
    left = sum(pid != pids[0] for pid in pids)

    def count_is_true():
        try:
            return server.in_flight() == left
        except (OSError, http.client.HTTPException):  # this, too, came to the dying one
            return False

    eventually(count_is_true, "only the living count")
    eventually(lambda: server.state()["draining"], "the flag outlives a worker, and its successor has it")


@pytest.mark.parametrize("kind", SEVERAL)
def test_a_refused_upload_gets_its_answer(serve, kind):
    server = serve(kind)
    server.ask("POST", "/-/drain")
    for _ in range(5):
        connection = server.connect()
        connection.request("POST", "/upload", body=b"x" * 600_000)
        assert refused_as_promised(connection.getresponse())


@pytest.mark.parametrize("kind", ["uvicorn-2", "gthread-4", "preload-4"])
def test_the_warm_up_runs_once_in_each_process_and_readiness_waits_for_it(serve, kind):
    server = serve(kind, APP_WARM="1")
    workers = 2 if kind == "uvicorn-2" else 4
    assert server.noted("warm") == []
    assert server.ask("GET", "/-/health/ready")[0] == 503
    eventually(lambda: server.ask("GET", "/-/health/ready")[0] == 200, "the first question started it")
    eventually(lambda: len(server.noted("warm")) >= workers, "one that was not up yet does it by itself")
    for _ in range(5):
        assert server.ask("POST", "/-/warm") == (200, {"warm": True})
    assert len(set(server.noted("warm"))) == len(server.noted("warm")) == workers


@pytest.mark.parametrize("kind", ["uvicorn", "sync-4"])
def test_a_warm_up_that_fails_is_said_and_can_be_tried_again(serve, kind):
    server = serve(kind, APP_WARM="1")
    server.broken.touch()
    assert server.ask("POST", "/-/warm")[0] == 500
    server.broken.unlink()
    status, problem = server.ask("GET", "/-/health/ready")
    assert (status, problem["detail"].split(":")[0]) == (503, "the warm-up failed")
    assert server.ask("POST", "/-/warm") == (200, {"warm": True})
    assert server.ask("GET", "/-/health/ready")[0] == 200
    assert "RuntimeError: no cache" in server.output.read_text()


def test_checks_of_the_application_decide(server):
    server.broken.touch()
    assert server.ask("GET", "/-/health/live")[0] == 503
    assert server.ask("GET", "/-/health/ready")[0] == 503
    server.broken.unlink()
    assert server.ask("GET", "/-/health/live") == (200, {"live": True})
    assert server.ask("GET", "/-/health/ready") == (200, {"ready": True})


def test_orders_through_a_proxy_and_wrong_methods_are_refused(server):
    for headers in ({"X-Forwarded-For": "10.0.0.9"}, {"Forwarded": "for=10.0.0.9"}, {"Origin": "http://evil.example"}):
        assert server.ask("POST", "/-/drain", **headers)[0] == 403
    assert server.ask("GET", "/-/drain")[0] == 405
    assert not server.state()["draining"]


def test_with_a_token_only_the_token_counts(serve):
    server = serve("uvicorn-2", UNIT_APP_TOKEN="s3cret")
    assert server.ask("POST", "/-/drain")[0] == 403
    assert server.ask("POST", "/-/drain", **{"X-Unit-Token": "other"})[0] == 403
    assert server.ask("POST", "/-/drain", **{"X-Unit-Token": "s3cret"})[0] == 202


def test_orders_from_an_own_address_that_is_not_loopback_are_taken(serve):
    server = serve("uvicorn")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            pytest.skip("this host has no address but loopback")
        own = probe.getsockname()[0]
    connection = server.connect(own)
    connection.request("POST", "/-/drain")
    assert connection.getresponse().status == 202


@pytest.mark.parametrize(
    ("kind", "name", "taker"),
    [
        ("uvicorn", "USR1", {"APP_SIGNAL": "USR1"}),
        ("preload-4", "RTMIN", {"APP_SIGNAL": "RTMIN"}),
        ("sync-4", "USR1", {"APP_SIGNAL": "USR1"}),  # the master hands it on
        ("uvicorn-main", "RTMIN", {}),
        ("sync-conf", "RTMIN", {}),
    ],
)
def test_a_signal_to_the_main_process_sets_the_flag(serve, kind, name, taker):
    server = serve(kind, **taker)
    waiting = server.begin("/wait")
    server.process.send_signal(signal.Signals[f"SIG{name}"])
    eventually(lambda: server.state()["draining"], "draining")
    assert server.in_flight() == 1
    server.release.touch()
    assert waiting.getresponse().status == 200


def test_the_lifespan_goes_to_the_application(serve):
    server = serve("uvicorn")
    server.stop()
    assert len(server.noted("startup")) == len(server.noted("shutdown")) == 1
