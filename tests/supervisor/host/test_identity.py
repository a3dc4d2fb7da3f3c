"""Names and numbers of users and groups."""

from __future__ import annotations

import os
import pwd
from errno import EPERM

import pytest

from supervisor.errors import SpawnError
from supervisor.host.identity import resolve

NOBODY = pwd.getpwnam("nobody")
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can switch to another user")


def test_who_asks_for_nobody_gets_the_daemons_own() -> None:
    assert resolve(None, None) is None


@as_root
@pytest.mark.parametrize("name", ["nobody", str(NOBODY.pw_uid)])
def test_a_user_brings_its_group_its_groups_and_its_environment(name: str) -> None:
    found = resolve(name, None)
    assert found is not None
    assert (found.uid, found.gid) == (NOBODY.pw_uid, NOBODY.pw_gid)
    assert set(found.groups) == set(os.getgrouplist("nobody", NOBODY.pw_gid))
    assert dict(found.environment) == {
        "HOME": NOBODY.pw_dir, "USER": "nobody", "LOGNAME": "nobody", "SHELL": NOBODY.pw_shell,
    }  # fmt: skip


@as_root
@pytest.mark.parametrize("name", ["daemon", "1"])
def test_a_group_alone_keeps_the_user(name: str) -> None:
    found = resolve(None, name)
    assert found is not None
    assert (found.uid, found.gid, found.groups, found.environment) == (os.geteuid(), 1, (1,), ())


@as_root
def test_a_group_besides_a_user_is_its_first() -> None:
    found = resolve("nobody", "daemon")
    assert found is not None
    assert (found.uid, found.gid) == (NOBODY.pw_uid, 1)
    assert 1 in found.groups


@pytest.mark.parametrize("name", ["no-such-user", "4294967294", "99999999999999999999", "²", "-1", "", "root\n"])
def test_a_user_that_there_is_not_is_refused(name: str) -> None:
    with pytest.raises(SpawnError) as caught:
        resolve(name, None)
    assert (caught.value.stage, caught.value.errno) == ("user", 0)
    assert str(caught.value) == f"no such user: {name}"


@pytest.mark.parametrize("name", ["no-such-group", "4294967295", "99999999999999999999", "²", "-1", ""])
def test_a_group_that_there_is_not_is_refused(name: str) -> None:
    with pytest.raises(SpawnError) as caught:
        resolve(None, name)
    assert (caught.value.stage, caught.value.errno) == ("group", 0)
    assert str(caught.value) == f"no such group: {name}"


def test_who_is_not_root_can_run_units_only_as_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: NOBODY.pw_uid)
    monkeypatch.setattr(os, "getegid", lambda: NOBODY.pw_gid)
    own = resolve("nobody", None)
    assert own is not None and own.uid == NOBODY.pw_uid
    for user, group, words in (
        ("root", None, "root"),
        (None, "daemon", "group daemon"),
        ("nobody", "daemon", "nobody"),
    ):
        with pytest.raises(SpawnError) as caught:
            resolve(user, group)
        assert caught.value.errno == EPERM
        assert str(caught.value) == f"no permission to run as {words}: unitd itself does not run as root"
