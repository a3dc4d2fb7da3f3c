"""A driver that has lost count of what its connection does, as after a long freeze of this process."""

from __future__ import annotations

from typing import Any

import asyncpg  # type: ignore[import-untyped]
import pytest
from asyncpg.prepared_stmt import PreparedStatement  # type: ignore[import-untyped]

from control_center.store import Store
from tests.control_center.store.conftest import Place


@pytest.mark.real
@pytest.mark.parametrize("place", ["postgresql"], indirect=True)
async def test_its_connection_is_given_up_and_the_work_is_done_again(
    place: Place, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetch, failed = PreparedStatement.fetch, []

    async def confused(statement: Any, *arguments: Any, **how: Any) -> Any:
        if not failed:
            failed.append(statement)
            raise asyncpg.InternalClientError("cannot switch to state 12; another operation (2) is in progress")
        return await fetch(statement, *arguments, **how)

    monkeypatch.setattr(PreparedStatement, "fetch", confused)
    await store.audit("somebody", "mode", {})
    assert failed and [record["who"] for record in await store.audit_records(limit=10)] == ["somebody"]
