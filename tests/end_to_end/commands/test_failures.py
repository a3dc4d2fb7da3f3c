"""Units that cannot be started: what they become, and which words say why."""

from __future__ import annotations

import os
import time

import pytest

from tests.end_to_end.host import Host
from tests.end_to_end.machine import until

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can switch users")


def _fatal(host: Host, table: str) -> str:
    host.configure(f"[unit.web]\nstartsecs = 0.1\nautostart = false\n{table}")
    host.run()
    begun = time.monotonic()
    [operation] = host.finish(host.order("start", "web"))
    status = host.unit("web")
    assert status["state"] == "FATAL" and status["pid"] is None, status
    assert operation["state"] == "failed" and status["last_exit"]["reason"] in operation["error"]
    assert time.monotonic() - begun < 2, "what cannot heal is not tried again"
    assert status["generation"] == 1
    assert host.processes() == set() and host.cgroups() == [] and host.zombies() == []
    return str(status["why"])


def test_a_command_that_is_not_there(any_host: Host) -> None:
    assert "no such file: /srv/nothing" in _fatal(any_host, 'command = "/srv/nothing --port 1"')


def test_a_command_that_is_in_no_folder_of_path(host: Host) -> None:
    assert "no such file: unitd-nothing is not in any folder of PATH" in _fatal(host, 'command = "unitd-nothing"')


def test_a_command_that_may_not_be_executed(host: Host) -> None:
    path = host.file("web", "#!/bin/sh\nsleep 1000\n")
    assert f"no permission to execute {path}" in _fatal(host, f'command = "{path}"')


def test_a_command_that_is_a_folder(host: Host) -> None:
    assert f"no permission to execute {host.folder}" in _fatal(host, f'command = "{host.folder}"')


def test_a_script_whose_interpreter_is_not_there(host: Host) -> None:
    path = host.file("web", "#!/srv/python9\n", 0o755)
    assert f"no such file: /srv/python9, the interpreter of {path}" in _fatal(host, f'command = "{path}"')


def test_a_file_that_is_no_program(host: Host) -> None:
    path = host.file("web", "just text\n", 0o755)
    assert "neither a binary for this machine nor a script" in _fatal(host, f'command = "{path}"')


def test_a_directory_that_is_not_there(host: Host) -> None:
    why = _fatal(host, 'command = "/bin/sleep 1000"\ndirectory = "/srv/nothing"')
    assert "no such directory: /srv/nothing" in why


def test_a_directory_that_is_a_file(host: Host) -> None:
    path = host.file("web", "")
    assert f"not a directory: {path}" in _fatal(host, f'command = "/bin/sleep 1000"\ndirectory = "{path}"')


@needs_root
def test_a_directory_that_its_user_may_not_enter(host: Host) -> None:
    (host.folder / "secret").mkdir(mode=0o700)
    why = _fatal(host, f'command = "/bin/sleep 1000"\nuser = "nobody"\ndirectory = "{host.folder}/secret"')
    assert f"no permission to enter the directory {host.folder}/secret" in why


@needs_root
def test_a_user_that_is_not_there(any_host: Host) -> None:
    assert "no such user: unitd-nobody" in _fatal(any_host, 'command = "/bin/sleep 1000"\nuser = "unitd-nobody"')


@needs_root
def test_a_group_that_is_not_there(host: Host) -> None:
    assert "no such group: unitd-none" in _fatal(host, 'command = "/bin/sleep 1000"\ngroup = "unitd-none"')


def test_a_unit_that_never_becomes_ready_is_given_up_after_its_retries(host: Host) -> None:
    host.configure(
        """
        [unit.web]
        command = ["/bin/sh", "-c", "exit 7"]
        startsecs = 0.2
        startretries = 2
        restart = { backoff_initial = 0.3, backoff_factor = 2, backoff_jitter = 0 }
        """
    )
    host.run()

    waiting = until("it waits between its starts", lambda: _in_backoff(host))
    status = host.until_state("web", "FATAL")

    assert "exited with code 7" in waiting["why"] and "next start in" in waiting["why"]
    assert "(failure " in waiting["why"]
    assert status["generation"] == 3, "one start and two more"
    assert "gave up after 3 failed starts in a row" in status["why"]
    assert (status["last_exit"]["code"], status["wanted"]) == (7, "up")
    [operation] = host.finish(host.order("start", "web"))
    assert operation["state"] == "failed" and host.unit("web")["generation"] == 6, "a start begins anew"


def _in_backoff(host: Host) -> dict[str, object] | None:
    status = host.unit("web")
    return status if status["state"] == "BACKOFF" and "next start in" in status["why"] else None


def test_the_pause_between_starts_grows(host: Host) -> None:
    times = host.folder / "times"
    host.configure(
        f"""
        [unit.web]
        command = ["/bin/sh", "-c", "cut -d ' ' -f 1 /proc/uptime >> {times}; exit 1"]
        startsecs = 0.2
        startretries = 3
        restart = {{ backoff_initial = 0.2, backoff_factor = 2, backoff_jitter = 0 }}
        """
    )
    host.run()
    host.until_state("web", "FATAL")

    began = [float(line) for line in times.read_text().split()]
    first, second, third = (after - before for before, after in zip(began, began[1:], strict=False))
    assert first >= 0.18 and second >= 0.38 and third >= 0.78
    assert third < 2.5


def test_a_registered_unit_that_does_not_listen_is_not_ready(host: Host) -> None:
    port = host.port()
    host.configure(
        f"""
        [unit.web]
        command = "/bin/sleep 1000"
        startsecs = 0.1
        start_timeout = 0.6
        startretries = 0
        service.port = {port}
        """
    )
    host.run()

    status = host.until_state("web", "FATAL")

    assert "was not ready within 0.6 s" in status["why"]
    assert host.entries("web") == []
    assert host.processes() == set()


def test_what_was_given_up_is_started_again_when_the_file_appears_and_the_configuration_is_applied(
    host: Host,
) -> None:
    path = host.folder / "web"
    host.configure(f'unit.web = {{ command = "{path}", startsecs = 0.1 }}')
    host.run()
    host.until_state("web", "FATAL")
    host.file("web", "#!/bin/sh\nexec sleep 1000\n", 0o755)

    answer = host.ask("POST", "/v1/config/apply", {})

    assert answer.status == 202, answer
    host.until_state("web", "RUNNING")
