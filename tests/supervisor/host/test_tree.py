"""What /proc says about who belongs to whom."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from supervisor.host import tree
from tests.supervisor.host.trees import PYTHON

GONE = 2**22 + 1  # beyond any pid


@contextmanager
def running(*argv: str, **more: object) -> Iterator[subprocess.Popen[str]]:
    """A process that has said one line, and its end."""
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, start_new_session=True, **more)  # type: ignore[call-overload]
    try:
        yield process
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()


def test_a_process_has_a_place_whatever_it_is_called(tmp_path: Path) -> None:
    program = tmp_path / "a) R (b"
    program.symlink_to("/bin/sleep")
    with running(str(program), "1000") as process:
        place = tree.stat(process.pid)
        assert place is not None
        assert place.state in "SRD"  # D: its program is still being read from the disk
        assert place[2:] == (os.getpid(), process.pid, process.pid)


def test_what_has_gone_has_no_place_no_children_and_no_unit() -> None:
    assert tree.stat(GONE) is None
    assert tree.children(GONE) == []
    assert tree.descendants(GONE) == []
    assert tree.unit_of(GONE) is None


def test_a_zombie_is_a_child_until_it_is_reaped() -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    place = tree.stat(pid)
    assert place is not None and place.state == "Z"
    assert pid in tree.children(os.getpid())
    os.waitpid(pid, 0)
    assert pid not in tree.children(os.getpid())


def test_children_of_every_thread_are_found() -> None:
    code = (
        "import subprocess, threading, time\n"
        "def start():\n    print(subprocess.Popen(['sleep', '1000']).pid, flush=True)\n    time.sleep(1000)\n"
        "threading.Thread(target=start, daemon=True).start()\ntime.sleep(1000)"
    )
    with running(*PYTHON, code) as process:
        child = int(process.stdout.readline()) if process.stdout else 0
        assert tree.children(process.pid) == [child]


def test_descendants_go_all_the_way_down() -> None:
    with running("/bin/sh", "-c", "sh -c 'sleep 1000 & echo $$ $!; wait' & wait") as process:
        pids = {int(pid) for pid in (process.stdout.readline() if process.stdout else "").split()}
        assert set(tree.descendants(process.pid)) == pids


def test_the_unit_is_read_from_the_environment() -> None:
    marked = {"PATH": os.environ["PATH"], "A": "1", "UNITD_UNIT": "cart:1"}
    with running("sh", "-c", "echo; sleep 1000", env=marked) as process:
        assert process.stdout and process.stdout.readline()
        assert tree.unit_of(process.pid) == "cart:1"
    with running("sh", "-c", "echo; sleep 1000", env={"PATH": os.environ["PATH"]}) as process:
        assert process.stdout and process.stdout.readline()
        assert tree.unit_of(process.pid) is None


def test_a_command_is_marked_but_no_part_of_its_unit() -> None:
    marked = {"PATH": os.environ["PATH"], "UNITD_UNIT": "cart:1", "UNITD_GENERATION": "3", "UNITD_COMMAND": "1"}
    with running("sh", "-c", "echo; sleep 1000", env={**marked, "UNITD_STATE": "f00"}) as process:
        assert process.stdout and process.stdout.readline()
        assert tree.marks_of(process.pid) == tree.Marks("cart:1", 3, "f00", True)
        assert tree.unit_of(process.pid) is None
        assert tree.members(GONE, "cart:1") == [] and tree.leftovers("f00") == {}


def test_marks_that_make_no_sense_find_nothing() -> None:
    marked = {"PATH": os.environ["PATH"], "UNITD_GENERATION": "many", "UNITD_STATE": "f00", "X": "UNITD_UNIT=cart"}
    with running("sh", "-c", "echo; sleep 1000", env=marked) as process:
        assert process.stdout and process.stdout.readline()
        assert tree.marks_of(process.pid) == tree.Marks("", 0, "f00", False)
        assert tree.leftovers("f00") == {} and tree.leftovers("f") == {}


def test_the_number_of_a_leader_that_has_ended_may_be_somebody_elses() -> None:
    with running("sh", "-c", "echo; sleep 1000") as process:
        assert process.stdout and process.stdout.readline()
        survey = tree.Survey()
        assert process.pid in survey.members(process.pid, "web")
        assert survey.members(process.pid, "web", ended=True) == []
        assert survey.members(0, "web") == []


def test_the_unit_is_found_even_in_the_middle_of_an_exec(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tree, "EXEC_MILLISECONDS", 2000)  # on a busy machine it may take long
    code = "import os, sys\nprint(flush=True)\nos.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
    for _ in range(20):
        marked = {"PATH": os.environ["PATH"], "UNITD_UNIT": "cart:1"}
        with running(*PYTHON, code, "-c", "import time; time.sleep(1000)", env=marked) as process:
            assert process.stdout and process.stdout.readline()
            assert {tree.unit_of(process.pid) for _ in range(200)} == {"cart:1"}


def test_members_are_the_group_the_session_and_what_is_below(tmp_path: Path) -> None:
    script = "sleep 1000 & echo $!; setsid sh -c 'sleep 1000 & echo $!; echo $$; wait' & wait"
    with running("/bin/sh", "-c", script) as process:
        assert process.stdout is not None
        pids = {int(process.stdout.readline()) for _ in range(3)}
        try:
            assert set(tree.members(process.pid, "web")) == {process.pid, *pids}
        finally:
            for pid in pids:
                with suppress(ProcessLookupError):  # the end of one is the end of the one that waits for it
                    os.kill(pid, signal.SIGKILL)


def test_an_orphan_of_ours_is_a_member_of_the_unit_it_is_marked_with() -> None:
    code = "import time\nprint(flush=True)\ntime.sleep(1000)"
    with running(*PYTHON, code, env={"UNITD_UNIT": "cart", "PATH": os.environ["PATH"]}) as process:
        assert process.stdout and process.stdout.readline()
        assert tree.members(GONE, "cart") == [process.pid], "it is a child of ours, whatever its group"
        assert tree.members(GONE, "other") == []


def test_the_dead_are_no_members() -> None:
    pid = os.fork()
    if pid == 0:
        os.setsid()
        os._exit(0)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert tree.members(pid, "web") == []
    os.waitpid(pid, 0)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_process_of_another_user_says_nothing_to_who_may_not_ask() -> None:
    with running("sleep", "1000", env={"UNITD_UNIT": "cart", "PATH": os.environ["PATH"]}) as process:
        reading, writing = os.pipe()
        asker = os.fork()
        if asker == 0:
            os.setuid(65534)
            os.write(writing, repr(tree.unit_of(process.pid)).encode())
            os._exit(0)
        os.waitpid(asker, 0)
        assert os.read(reading, 100) == b"None"
        os.close(reading)
        os.close(writing)
