"""The PostgreSQL server of the tests: keeps its data when it is killed, loses them when told to, freezes whole."""

from __future__ import annotations

import pytest

from tests.servers import Postgres
from tests.servers.fixtures import ShareServer, StartServer

pytestmark = pytest.mark.real


def test_it_keeps_its_data_when_it_is_killed_and_when_it_is_restarted(start_server: StartServer) -> None:
    server = start_server(Postgres)
    database = server.new_database().rpartition("/")[2]
    server.ask("CREATE TABLE kept (word text); INSERT INTO kept VALUES ('kept')", database)
    port = server.port
    server.kill()
    assert server.pid is None
    server.start()
    assert server.ask("SELECT word FROM kept", database) == "kept"
    server.restart()
    assert (server.ask("SELECT word FROM kept", database), server.port) == ("kept", port)
    assert int(server.version.partition(".")[0]) >= 13
    server.lose_everything()
    assert server.ask("SELECT count(*) FROM pg_database WHERE datname LIKE 't%'") == "2"  # the templates


def test_a_frozen_one_answers_nobody(start_server: StartServer) -> None:
    server = start_server(Postgres, durable=True)
    server.freeze()
    with pytest.raises(OSError, match=r"does not end|timeout"):
        server.ask("SELECT 1", timeout_seconds=3.0)
    server.thaw()
    server.wait_ready()
    assert server.ask("SHOW fsync") == "on"


def test_each_database_is_empty(share_server: ShareServer) -> None:
    postgres = share_server(Postgres)
    first, second = postgres.new_database(), postgres.new_database()
    assert first != second
    postgres.ask("CREATE TABLE a ()", first.rpartition("/")[2])
    assert postgres.ask("SELECT count(*) FROM pg_tables WHERE tablename = 'a'", second.rpartition("/")[2]) == "0"
