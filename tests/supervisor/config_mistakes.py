"""A valid configuration, and mistakes in it made by chance from a seed: whoever reads configurations must refuse each.

`mistakes()` always answers the same list for the same seed. A mistake is a set of files; `write` puts them into a
folder, so that a real daemon can be started on them too.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.supervisor.config_draft import CART, DATABASE, ENV, MAIN, Draft, write
from tests.supervisor.config_probe_mistakes import PROBE_KINDS
from tests.supervisor.config_wrong_values import WRONG, WRONG_MAIN

FOUR_MIB = 4 * 1024 * 1024


@dataclass(frozen=True)
class Mistake:
    """Files that must be refused. `key` and `line` are what the error has to name (None: not sure to be findable)."""

    number: int
    kind: str
    files: dict[str, bytes]
    file: str  # whose fault it is
    key: str | None
    line: int | None

    def write(self, folder: Path) -> Path:
        """Put the files into the folder; answers the main one."""
        return write(self.files, folder)

    def __str__(self) -> str:
        return f"{self.number}-{self.kind}"


_BRACE_WORDS = (
    "{prot}",
    "{prt}",
    "{PORT}",
    "{process_num}",
    "{name}",
    "{ENV_HOME}",
    "%(process_num)02d",
    "%(ENV_HOME)s",
)
_HABITS = (
    "process_name", "stopasgroup", "killasgroup", "stdout_logfile", "stderr_logfile", "redirect_stderr",
    "stdout_logfile_maxbytes", "stderr_logfile_backups", "stdout_syslog", "port", "memory_max", "kill_timeout",
    "healthcheck", "readinessProbe", "livenessProbe", "periodSeconds", "httpGet", "stop_grace_period", "preStop",
)  # fmt: skip
_PROBES = ("startup", "readiness", "liveness")


def wrong_value(draft: Draft) -> None:
    wrong, keys = draft.rng.choice(WRONG)
    key = draft.rng.choice(keys)
    draft.put(CART, f"unit.cart.{key}", draft.rng.choice(wrong))
    draft.blame(f"unit.cart.{key}", CART)


def wrong_value_in_the_main_file(draft: Draft) -> None:
    wrong, keys = draft.rng.choice(WRONG_MAIN)
    key = draft.rng.choice(keys)
    draft.put(MAIN, key, draft.rng.choice(wrong))
    draft.blame(key)


def misspelt_key(draft: Draft) -> None:
    table, prefix = draft.unit(), "unit.cart."
    part = draft.rng.choice(["", "service", "restart", "logs", "limits", *_PROBES, "drain", "warmup"])
    if part:
        table, prefix = table[part], f"{prefix}{part}."
    # A required key is given under its own name too: else its absence would be the first error.
    key = draft.rng.choice([key for key, value in table.items() if not isinstance(value, dict)])
    at = draft.rng.randrange(len(key))
    typo = draft.rng.choice([key[:at] + "x" + key[at:], key + "s", key.replace("_", "-") + "-", key.upper()])
    table[typo] = table[key]
    draft.blame(f"{prefix}{typo}")


def unknown_table(draft: Draft) -> None:
    name = draft.rng.choice(
        ["program", "units", "group", "supervisord", "deamon", "Daemon", "defaults", "inet_http_server"]
    )
    draft.tables[MAIN][name] = {"a": 1}
    draft.blame(name)


def table_that_is_none(draft: Draft) -> None:
    name = draft.rng.choice(["daemon", "http", "registry", "include", "unit"])
    if name == "unit":
        draft.tables[MAIN]["unit"]["clock"] = draft.rng.choice(["/bin/sleep 9", 1, True, [1]])
        draft.blame("unit.clock")
    else:
        draft.tables[MAIN][name] = draft.rng.choice(["x", 1, True, [1]])
        draft.blame(name)


def part_that_is_no_table(draft: Draft) -> None:
    part = draft.rng.choice(["service", "restart", "logs", "limits", *_PROBES, "drain", "warmup"])
    draft.unit()[part] = draft.rng.choice(["x", 80, True, ["x"]])
    draft.blame(f"unit.cart.{part}")


def missing_command(draft: Draft) -> None:
    del draft.unit(draft.rng.choice(["cart", "database"]))["command"]
    name = "cart" if draft.file == CART else "database"
    draft.key = f"unit.{name}.command"
    draft.line = -1  # the table's own


def missing_port(draft: Draft) -> None:
    del draft.unit()["service"]["port"]
    draft.blame("unit.cart.service.port")


def missing_url(draft: Draft) -> None:
    draft.tables[MAIN]["registry"]["backend"] = "http"
    draft.blame("registry.url")


def unit_defined_in_two_files(draft: Draft) -> None:
    draft.tables[DATABASE]["unit"]["cart"] = {"command": "/bin/true"}
    draft.blame("unit.cart", DATABASE)


def table_written_twice(draft: Draft) -> None:
    draft.file = CART
    draft.spoil[CART] = lambda data: data + b"\n[unit.cart.logs]\nbackups = 1\n"


def key_written_twice(draft: Draft) -> None:
    draft.file = DATABASE
    draft.spoil[DATABASE] = lambda data: data + b"priority = 1\npriority = 2\n"


def list_of_tables(draft: Draft) -> None:
    draft.file = DATABASE
    draft.spoil[DATABASE] = lambda data: data + b'[[unit.more]]\ncommand = "x"\n'
    draft.key = "unit.more"


def port_of_another_unit(draft: Draft) -> None:
    draft.unit("database")["service"]["port"] = draft.rng.choice([9080, 9081])
    draft.blame("unit.database.service.port")


def port_of_the_daemon(draft: Draft) -> None:
    draft.tables[MAIN]["http"] = {"listen": "127.0.0.1:9081"}
    draft.unit()
    draft.blame("unit.cart.service.port")


def port_without_a_service(draft: Draft) -> None:
    draft.unit("monitor")["command"] = draft.rng.choice(["serve {port}", ["serve", "-p{port}"]])
    draft.blame("unit.monitor.command")


def bytes_that_are_no_text(draft: Draft) -> None:
    draft.file = draft.rng.choice([MAIN, CART, DATABASE, ENV])
    at, junk = draft.rng.random(), draft.rng.choice([b"\xff", b"\xc3\x28", b"\x80", b"\xed\xa0\x80", b"\0"])
    draft.spoil[draft.file] = lambda data: data[: int(at * len(data))] + junk + data[int(at * len(data)) :]


def another_encoding(draft: Draft) -> None:
    draft.file = draft.rng.choice([MAIN, CART, DATABASE])
    encoding = draft.rng.choice(["utf-16", "utf-32", "utf-16-be"])
    draft.spoil[draft.file] = lambda data: data.decode().encode(encoding)


def huge_file(draft: Draft) -> None:
    draft.file = draft.rng.choice([MAIN, CART, ENV])
    draft.spoil[draft.file] = lambda data: data + b"#" * FOUR_MIB


def deeply_nested(draft: Draft) -> None:
    draft.file = DATABASE
    depth = draft.rng.choice([600, 5000, 100_000])
    junk = draft.rng.choice([b"x = " + b"[" * depth, b"x = " + b"{a=" * depth, b".".join([b"a"] * depth * 2) + b" = 1"])
    draft.spoil[DATABASE] = lambda data: data + junk + b"\n"


def endless_number(draft: Draft) -> None:
    draft.file = DATABASE
    draft.spoil[DATABASE] = lambda data: data + b"priority = " + b"9" * draft.rng.choice([5000, 100_000]) + b"\n"


def truncated_file(draft: Draft) -> None:
    draft.file = draft.rng.choice([MAIN, CART, DATABASE])
    share = draft.rng.random()

    def cut(data: bytes) -> bytes:
        """Behind a quote that opens or a bracket: a cut between two lines would leave a valid file."""
        places = [at + 1 for at, byte in enumerate(data) if byte in b"[{="]
        return data[: places[int(share * len(places))]]

    draft.spoil[draft.file] = cut


def garbage(draft: Draft) -> None:
    draft.file = draft.rng.choice([MAIN, CART, DATABASE])
    junk = draft.rng.choice(
        [b"[program:cart]\ncommand=/bin/cart\n", b"{}", b"= 1", b"a b = 1", b'"', b"]", b"x = \n", b"%PDF"]
    )
    draft.spoil[draft.file] = lambda data: junk + b"\n" + data


def unknown_placeholder(draft: Draft) -> None:
    word = draft.rng.choice(_BRACE_WORDS)
    key = draft.rng.choice(
        ["command", "directory", "environment.PORT", "envfile", "service.version", "service.metadata.team",
         "logs.stdout", "logs.stderr", "readiness.http.path", "drain.notify.http", "startup.tcp.host"]
    )  # fmt: skip
    draft.put(CART, f"unit.cart.{key}", f"/x/{word}")
    draft.blame(f"unit.cart.{key}", CART)


def habit_of_supervisord(draft: Draft) -> None:
    key = draft.rng.choice(_HABITS)
    draft.unit()[key] = "1"
    draft.blame(f"unit.cart.{key}", CART)


def unknown_dependency(draft: Draft) -> None:
    draft.unit()["depends_on"] = draft.rng.choice([["databse"], ["database", "redis"], ["cart:0"], ["all"], ["*"]])
    draft.blame("unit.cart.depends_on")


def circle_of_dependencies(draft: Draft) -> None:
    if draft.rng.random() < 0.5:
        draft.unit("database")["depends_on"] = ["database"]
        draft.blame("unit.database.depends_on")
    else:
        draft.unit("database")["depends_on"] = ["cart"]
        draft.unit()
        draft.blame("unit.cart.depends_on")


def name_that_is_none(draft: Draft) -> None:
    name = draft.rng.choice(["all", "a:b", "*", "a b", "ä", "x" * 65, "..", ".", "", "a/b", "web[1]"])
    draft.unit("database")
    draft.tables[DATABASE]["unit"][name] = {"command": "/bin/true"}
    draft.key = f"unit.{name}" if name in ("all", "x" * 65) else f"unit.{name!r}"
    draft.line = -1


def shared_log(draft: Draft) -> None:
    draft.unit("monitor")["logs"] = {"stdout": "log/cart-1.log"}
    draft.tables[DATABASE]["unit"]["monitor"]["logs"]["stdout"] = "../units.d/log/cart-1.log"
    draft.blame("unit.monitor.logs.stdout")


def log_shared_by_the_processes_of_a_unit(draft: Draft) -> None:
    draft.unit()["logs"]["stdout"] = "/var/log/cart.log"
    draft.blame("unit.cart.logs.stdout")


def log_that_is_a_folder(draft: Draft) -> None:
    draft.unit()["logs"]["stderr"] = "/var/log/"
    draft.blame("unit.cart.logs.stderr")


def stderr_said_twice(draft: Draft) -> None:
    draft.unit()["logs"]["redirect_stderr"] = True
    draft.blame("unit.cart.logs.stderr")


def timeouts_that_contradict(draft: Draft) -> None:
    if draft.rng.random() < 0.5:
        draft.unit()["startsecs"] = draft.rng.choice([30, "1m"])
        draft.blame("unit.cart.start_timeout")
    else:
        draft.unit()["restart"]["backoff_initial"] = "2m"
        draft.blame("unit.cart.restart.backoff_max")


def too_many_processes(draft: Draft) -> None:
    units = draft.tables[DATABASE]["unit"]
    units.update((f"more{n}", {"command": "/bin/true", "numprocs": 1000}) for n in range(11))
    draft.blame("unit.more9.numprocs", DATABASE)


def last_port_too_high(draft: Draft) -> None:
    unit = draft.unit()
    unit["numprocs"], unit["numprocs_start"] = draft.rng.choice([(100, 0), (2, 65000), (1, 65535)])
    unit["service"]["port"] = 65500
    draft.blame("unit.cart.service.port")


def included_file_that_includes(draft: Draft) -> None:
    draft.tables[CART]["include"] = {"files": [draft.rng.choice(["../unitd.toml", "cart.toml", "*.toml"])]}
    draft.blame("include", CART)


def included_main_table(draft: Draft) -> None:
    name = draft.rng.choice(["daemon", "http", "registry", "program", "group"])
    draft.tables[CART][name] = {"a": 1}
    draft.blame(name, CART)


def include_of_the_wrong_thing(draft: Draft) -> None:
    """Itself, a file twice, a folder, a file that is not there."""
    pattern = draft.rng.choice(["*.toml", "units.d/../unitd.toml", "units.d/cart.toml", "units.d/c*.toml"])
    draft.tables[MAIN]["include"]["files"].append(pattern)
    draft.blame("include.files")


def include_of_a_folder(draft: Draft) -> None:
    draft.tables[MAIN]["include"]["files"].append("units*")
    draft.blame("include.files")


def include_of_a_file_that_is_not_there(draft: Draft) -> None:
    draft.tables[MAIN]["include"]["files"].append("units.d/crat.toml")
    draft.blame("include.files")


def missing_env_file(draft: Draft) -> None:
    draft.unit()["envfile"] = draft.rng.choice(["cart.env", "/nonexistent/env", "/", "/dev/zero"])
    draft.blame("unit.cart.envfile")


def bad_line_in_the_env_file(draft: Draft) -> None:
    line = draft.rng.choice(['A="b', "A='b", "A='b' c", "no assignment", "export", "=a", "1A=b", "A B=c", "set -e"])
    draft.env += f"{line}\nLAST=1\n".encode()
    draft.file, draft.line = ENV, 4


KINDS: tuple[Callable[[Draft], None], ...] = (
    wrong_value, wrong_value, wrong_value, wrong_value_in_the_main_file, wrong_value_in_the_main_file, misspelt_key,
    unknown_table, table_that_is_none, part_that_is_no_table, missing_command, missing_port, missing_url,
    unit_defined_in_two_files, table_written_twice, key_written_twice, list_of_tables, port_of_another_unit,
    port_of_the_daemon, port_without_a_service, bytes_that_are_no_text, another_encoding, huge_file, deeply_nested,
    endless_number, truncated_file, garbage, unknown_placeholder, habit_of_supervisord,
    unknown_dependency, circle_of_dependencies, name_that_is_none, shared_log, log_shared_by_the_processes_of_a_unit,
    log_that_is_a_folder, stderr_said_twice, timeouts_that_contradict, too_many_processes, last_port_too_high,
    included_file_that_includes, included_main_table, include_of_the_wrong_thing, include_of_a_folder,
    include_of_a_file_that_is_not_there, missing_env_file, bad_line_in_the_env_file, *PROBE_KINDS,
)  # fmt: skip


def mistakes(count: int = 200, seed: int = 20261124) -> list[Mistake]:
    """So many different mistakes, every kind among them where `count` allows."""
    rng = random.Random(seed)
    made: list[Mistake] = []
    seen: set[tuple[tuple[str, bytes], ...]] = set()
    tries = 0
    while len(made) < count and tries < 50 * count:
        make = KINDS[tries % len(KINDS)]
        tries += 1
        mistake = _make(make, rng, len(made))
        # Whole files of several MiB are many; what makes them different is at their beginning.
        content = tuple((name, data[:100_000]) for name, data in mistake.files.items())
        if content not in seen:
            seen.add(content)
            made.append(mistake)
    return made


def _make(make: Callable[[Draft], None], rng: random.Random, number: int) -> Mistake:
    draft = Draft(rng)
    make(draft)
    files = draft.rendered()
    line: int | None = draft.line
    if line in (None, -1) and draft.key is not None:
        key = draft.key.replace("'", "") if line is None else draft.key.rsplit(".command")[0].replace("'", "")
        line = draft.places.get((draft.file, key))
    return Mistake(number, make.__name__, files, draft.file, draft.key, line)
