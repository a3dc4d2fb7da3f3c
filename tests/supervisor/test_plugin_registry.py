"""Probe kinds are found by the entry points of what is installed, and imported only when they are asked for."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from supervisor.errors import PluginError
from supervisor.plugin_api import PROBES, OptionError
from supervisor.plugin_registry import make_probe, printable, probe_kind, probe_kinds
from tests.supervisor.plugin_files import GOOD, installer

Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    return installer(tmp_path, monkeypatch)


def test_the_kinds_that_come_with_unitd_are_found_like_those_of_others(install: Install) -> None:
    before = probe_kinds()
    install("acme-probes", {"acme": "acme_one:Kind"}, acme_one=GOOD)
    assert probe_kinds() == sorted([*before, "acme"])
    assert {"http", "tcp", "exec", "notify", "kernel"} <= set(before)


def test_what_is_found_is_what_importlib_metadata_finds(install: Install) -> None:
    install("acme-probes", {"acme": "acme_two:Kind"}, acme_two=GOOD)
    assert probe_kinds() == sorted({entry.name for entry in importlib.metadata.entry_points(group=PROBES)})


def test_a_kind_is_imported_when_it_is_asked_for_and_once_only(install: Install) -> None:
    install("acme-probes", {"lazy": "acme_lazy:Kind", "other": "acme_other:Kind"}, acme_lazy=GOOD, acme_other=GOOD)
    probe_kinds()
    assert "acme_lazy" not in sys.modules
    assert probe_kind("lazy") is probe_kind("lazy")
    assert "acme_lazy" in sys.modules
    assert "acme_other" not in sys.modules


def test_a_kind_may_be_an_attribute_of_a_class_and_may_name_extras(install: Install) -> None:
    source = "class Outer:\n    class Kind:\n        def __init__(self, options): self.options = options\n"
    install("acme-probes", {"nested": "acme_nested : Outer.Kind [fast]"}, acme_nested=source)
    assert make_probe("nested", {"a": 1}).options == {"a": 1}  # type: ignore[attr-defined]


def test_a_kind_that_is_installed_while_we_run_is_found(install: Install) -> None:
    with pytest.raises(LookupError):
        probe_kind("late")
    install("acme-late", {"late": "acme_late:Kind"}, acme_late=GOOD)
    assert callable(probe_kind("late"))


def test_an_unknown_kind_is_a_lookup_error() -> None:
    with pytest.raises(LookupError, match="no probe kind is called nothing"):
        probe_kind("nothing")


@pytest.mark.parametrize(
    ("value", "source", "words"),
    [
        ("acme_gone:Kind", None, "ModuleNotFoundError: No module named 'acme_gone'"),
        ("acme_empty:Kind", "", "has no attribute 'Kind'"),
        ("acme_raises:Kind", "raise RuntimeError('no\\nluck')", "RuntimeError: no luck"),
        ("acme_syntax:Kind", "def", "SyntaxError"),
        ("acme_exits:Kind", "raise SystemExit(3)", "SystemExit: 3"),
        ("acme_silent:Kind", "raise ValueError", "ValueError"),
        ("acme_number:Kind", "Kind = 3", "is no class"),
        ("acme_no_attribute", "", "is not module:class"),
        ("", "", "is not module:class"),
    ],
)
def test_a_kind_that_cannot_be_imported_is_an_error_that_names_its_distribution(
    install: Install, value: str, source: str | None, words: str
) -> None:
    module = value.partition(":")[0] or "acme_nameless"
    install("acme_probes", {"broken": value}, **({} if source is None else {module: source}))
    for _ in range(2):
        with pytest.raises(PluginError) as caught:
            probe_kind("broken")
        assert (caught.value.plugin, caught.value.distribution) == ("broken", "acme_probes")
        assert words in str(caught.value)
        assert str(caught.value).isprintable()


def test_two_distributions_with_one_name_are_an_error_that_names_both(install: Install) -> None:
    install("acme_probes", {"http": "acme_http:Kind"}, acme_http=GOOD)
    with pytest.raises(PluginError) as caught:
        probe_kind("http")
    assert {"acme_probes", "unitd"} <= set(str(caught.value).replace(":", "").split())


def test_a_distribution_that_is_there_twice_is_found_once(
    install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install("acme_probes", {"twice": "acme_first:Kind"}, acme_first=GOOD)
    monkeypatch.syspath_prepend(tmp_path / "second")
    installer(tmp_path / "second", monkeypatch)("Acme_Probes", {"twice": "acme_second:Kind"}, acme_second=GOOD)
    assert probe_kind("twice").__module__ == "acme_second"  # type: ignore[attr-defined]


def test_files_that_are_none_of_ours_are_passed_over(install: Install, tmp_path: Path) -> None:
    install("acme_probes", {"there": "acme_there:Kind"}, acme_there=GOOD)
    (tmp_path / "a-1.dist-info" / "entry_points.txt").mkdir(parents=True)
    (tmp_path / "b-1.egg-info").write_text("a file")
    (tmp_path / "c-1.dist-info").mkdir()
    (tmp_path / "c-1.dist-info" / "entry_points.txt").write_bytes(b"\xff\xfe[unitd.probes\nx = y\n")
    (tmp_path / "d-1.dist-info").mkdir()
    (tmp_path / "d-1.dist-info" / "entry_points.txt").write_text(
        "# a comment\n[unitd.probes.not]\nno = a:b\n\n[unitd.probes]\n; another\n  spaced  =  a:b  \n[more]\nno = a:b\n"
    )
    names = probe_kinds()
    assert {"there", "spaced"} <= set(names)
    assert not {"no", "x", "y", "# a comment"} & set(names)


def test_options_that_a_kind_refuses_are_told_as_it_does(install: Install) -> None:
    source = "from supervisor.plugin_api import OptionError\ndef Kind(options):\n    raise OptionError('port', 'bad')\n"
    install("acme_probes", {"picky": "acme_picky:Kind"}, acme_picky=source)
    with pytest.raises(OptionError, match="bad") as caught:
        make_probe("picky", {})
    assert caught.value.key == "port"


def test_a_kind_that_raises_anything_else_is_blamed_by_name(install: Install) -> None:
    install("acme_probes", {"buggy": "acme_buggy:Kind"}, acme_buggy="def Kind(options):\n    return options['x']\n")
    with pytest.raises(PluginError, match="cannot use the plugin buggy of acme_probes: it raised KeyError: 'x'"):
        make_probe("buggy", {})


def test_what_a_plugin_says_fits_on_one_line() -> None:
    assert printable("a\nb\t\x1b[31mc") == "a b \\x1b[31mc"
    assert len(printable("x" * 10_000)) < 400


def test_finding_kinds_imports_neither_importlib_metadata_nor_any_kind() -> None:
    script = (
        "import sys; before = set(sys.modules); import supervisor.plugin_registry as r; r.probe_kinds();"
        "new = set(sys.modules) - before; print(*sorted(new))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=15, check=True)
    new = done.stdout.split()
    assert "supervisor.plugin_registry" in new
    assert not {"importlib.metadata", "email", "zipfile", "csv", "asyncio", "ssl"} & set(new)
    assert not [name for name in new if name.startswith(("supervisor.host", "plugins"))]
