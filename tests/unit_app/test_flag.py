"""The flag and the count, in one process and in several; and the folder that they are kept in."""

import os
import signal
import subprocess
import sys
import threading

import pytest

from tests.unit_app.serving import eventually
from unit_app import Flag, board
from unit_app.board import COUNT, UnsafeFolder, start_time

OTHER = """
import sys
from unit_app import Flag
flag = Flag()
running = flag.enter()
print("set" if flag.is_set else "clear", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def unit(monkeypatch):
    monkeypatch.setenv("UNITD_UNIT", "cart:0")
    monkeypatch.setenv("UNITD_GENERATION", "7")


@pytest.fixture
def other():
    """Another process with a flag and one request, and what it says of the flag."""
    made = []

    def start():
        process = subprocess.Popen(
            [sys.executable, "-c", OTHER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        made.append(process)
        return process, process.stdout.readline().strip()

    yield start
    for process in made:
        process.kill()
        process.communicate()


def test_requests_count_until_they_end_and_only_once():
    flag = Flag()
    first, second = flag.enter(), flag.enter()
    assert flag.in_flight() == 2
    first.end()
    first.end()
    assert flag.in_flight() == 1
    flag.set()
    assert flag.is_set and flag.enter() is None
    assert flag.in_flight() == 1
    flag.clear()
    second.end()
    assert (flag.in_flight(), flag.is_set) == (0, False)


def test_threads_lose_no_count():
    flag = Flag()

    def many():
        for _ in range(500):
            flag.enter().end()

    threads = [threading.Thread(target=many) for _ in range(8)]
    for thread in threads:
        thread.start()
    kept = [flag.enter() for _ in range(3)]
    for thread in threads:
        thread.join()
    assert flag.in_flight() == len(kept)


def test_processes_of_one_unit_share_the_flag_and_the_count(unit, other):
    flag = Flag()
    assert other()[1] == "clear"
    assert (flag.in_flight(), flag.processes()) == (1, 2)
    flag.set()
    assert other()[1] == "set"


def test_a_killed_process_counts_no_longer_even_before_it_is_reaped(unit, other):
    flag = Flag()
    process, _ = other()
    os.kill(process.pid, signal.SIGKILL)
    eventually(lambda: flag.in_flight() == 0, "it is dead")  # nobody has waited for it
    assert process.returncode is None
    assert flag.processes() == 1


def test_another_process_with_the_pid_of_a_dead_one_does_not_revive_its_count(unit, other):
    flag = Flag()
    process, _ = other()
    words = flag.board.words
    slot = next(each for each in flag.board.used_slots() if words[each] == process.pid)
    words[slot + 1] -= 1  # the start time of the one before
    assert words[slot + COUNT] == 1
    assert flag.in_flight() == 0


def test_slots_of_the_dead_are_given_away_again(unit, other):
    flag = Flag()
    for _ in range(3):
        process, _ = other()
        process.kill()
        process.wait()
    assert len(flag.board.used_slots()) == 2


def test_the_flag_is_as_new_when_nobody_who_had_it_lives(unit, other):
    started = [other()[0]]
    flag = Flag()
    flag.set()
    flag.board.words[flag.board.slot] = 0  # as if this process had never been there
    second, state = other()
    started.append(second)
    assert state == "set"  # one lives
    for living in started:
        living.kill()
        living.wait()
    assert other()[1] == "clear"


def test_generations_names_units_and_daemons_are_apart(unit, monkeypatch):
    flags = [Flag(), Flag("admin")]
    monkeypatch.setenv("UNITD_STATE", "another")
    flags.append(Flag())
    monkeypatch.setenv("UNITD_GENERATION", "8")
    flags.append(Flag())
    monkeypatch.setenv("UNITD_UNIT", "cart/0%@..")
    flags.append(Flag())
    for index, flag in enumerate(flags):
        assert not flag.is_set, index
        flag.set()


def test_what_dead_processes_of_an_older_generation_left_is_removed(unit, other, monkeypatch, tmp_path):
    process, _ = other()
    monkeypatch.setenv("UNITD_GENERATION", "8")
    first = Flag()
    assert len(list((tmp_path / "board").glob("v1-*"))) == 2  # it lives
    process.kill()
    process.wait()
    assert not first.is_set
    monkeypatch.setenv("UNITD_GENERATION", "9")
    assert not Flag().is_set
    names = sorted(path.name for path in (tmp_path / "board").glob("v1-*"))
    assert names == ["v1-cart%3a0@@8~", "v1-cart%3a0@@9~"]


def test_without_a_unit_the_flag_is_private_but_for_forked_children(tmp_path):
    flag, stranger = Flag(), Flag()
    running = flag.enter()
    pid = os.fork()
    if pid == 0:
        running.end()  # the parent's, which goes on
        kept = flag.enter()
        flag.set()
        os._exit(7 if kept and flag.in_flight() == 2 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
    assert (flag.is_set, stranger.is_set, flag.in_flight()) == (True, False, 1)
    assert not (tmp_path / "board").exists()


def test_folders_and_files_of_others_are_not_used(unit, tmp_path):
    folder = tmp_path / "board"
    victim = tmp_path / "victim"
    victim.mkdir(mode=0o700)
    folder.symlink_to(victim)
    with pytest.raises(OSError):
        Flag()
    folder.unlink()
    folder.mkdir()
    folder.chmod(0o777)
    with pytest.raises(UnsafeFolder, match="UNIT_APP_DIR"):
        Flag()
    folder.chmod(0o700)
    (folder / "v1-cart%3a0@@7~").symlink_to(victim / "file")
    with pytest.raises(OSError):
        Flag()
    assert list(victim.iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_folder_that_another_user_owns_is_not_used(unit, tmp_path):
    folder = tmp_path / "board"
    folder.mkdir(mode=0o700)
    os.chown(folder, 65534, 65534)
    with pytest.raises(UnsafeFolder):
        Flag()


def test_by_default_the_folder_is_the_users_own(unit, monkeypatch):
    monkeypatch.delenv("UNIT_APP_DIR")
    monkeypatch.setenv("UNITD_UNIT", f"test-{os.getpid()}")
    Flag()
    folder = f"/dev/shm/unit_app-{os.geteuid()}"
    path = os.path.join(folder, f"v1-test-{os.getpid()}@@7~")
    try:
        assert os.stat(folder).st_mode & 0o777 == 0o700
        assert os.stat(path).st_mode & 0o777 == 0o600
    finally:
        os.unlink(path)


def test_more_processes_than_slots_is_said(monkeypatch):
    monkeypatch.setattr(board, "_SLOTS", 1)
    flag = Flag()
    pid = os.fork()
    if pid == 0:
        try:
            flag.enter()
        except RuntimeError:
            os._exit(7)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7


def test_a_signal_sets_the_flag_and_reaches_the_earlier_handler():
    flag, heard = Flag(), []
    before = signal.signal(signal.SIGUSR2, lambda *_: heard.append(1))
    try:
        flag.on_signal("SIGUSR2")
        signal.raise_signal(signal.SIGUSR2)
        assert flag.is_set and heard == [1]
    finally:
        signal.signal(signal.SIGUSR2, before)


def test_real_time_signals_have_names_too():
    flag = Flag()
    before = signal.getsignal(signal.SIGRTMIN + 3)
    try:
        flag.on_signal("rtmin+3")
        signal.raise_signal(signal.SIGRTMIN + 3)
        assert flag.is_set
    finally:
        signal.signal(signal.SIGRTMIN + 3, before)


def test_signals_that_cannot_be_handled_are_refused():
    flag, found = Flag(), []

    def elsewhere():
        try:
            flag.on_signal("USR2")
        except RuntimeError as error:
            found.append(str(error))

    with pytest.raises(ValueError, match="no such signal"):
        flag.on_signal("NOPE")
    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert found == ["cannot handle USR2: only the main thread may"]


def test_start_times_tell_processes_apart():
    assert start_time(os.getpid()) == start_time(os.getpid()) is not None
    assert start_time(2**22 + 1) is None
