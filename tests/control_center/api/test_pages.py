"""The page's files."""

from __future__ import annotations

from pathlib import Path

import pytest

from .site import center, principals


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A page."""
    made = tmp_path / "web"
    made.mkdir()
    (made / "index.html").write_text("<!doctype html><title>fleet</title>")
    (made / "app.js").write_text("export {}")
    (made / "style.css").write_text("body {}")
    (made / "notes.py").write_text("secret = 1")
    (tmp_path / "beside.js").write_text("secret")
    monkeypatch.setattr("control_center.api.open_routes.FOLDER", made)
    return made


async def test_the_page_and_its_files_are_served_to_everybody(tmp_path: Path, folder: Path) -> None:
    async with center(tmp_path, principals()) as site:
        for path, kind in (
            ("/", "text/html; charset=utf-8"),
            ("/static/app.js", "text/javascript; charset=utf-8"),
            ("/static/style.css", "text/css; charset=utf-8"),
        ):
            answer = await site.get(path)
            assert (answer.status, answer.headers["Content-Type"]) == (200, kind)
            assert answer.headers["Cache-Control"] == "no-cache"


async def test_a_file_that_is_known_is_not_sent_again(tmp_path: Path, folder: Path) -> None:
    async with center(tmp_path) as site:
        first = await site.get("/static/app.js")
        tag = first.headers["ETag"]
        again = await site.get("/static/app.js", **{"If-None-Match": f'"other", W/{tag}'})
        assert (again.status, again.body, again.headers["ETag"]) == (304, b"", tag)
        (folder / "app.js").write_text("export { more }")
        changed = await site.get("/static/app.js", **{"If-None-Match": tag})
        assert (changed.status, changed.body) == (200, b"export { more }")


async def test_nothing_but_the_pages_files_can_be_read(tmp_path: Path, folder: Path) -> None:
    async with center(tmp_path) as site:
        for path in (
            "notes.py", "none.js", "../beside.js", "..%2Fbeside.js", "%2e%2e%2fbeside.js", "%2Fetc%2Fpasswd", "%00.js",
            "....//beside.js", ".", "web/app.js", "app.js/",
        ):  # fmt: skip
            answer = await site.get(f"/static/{path}")
            assert answer.status in (400, 404), path
            assert b"secret" not in answer.body
