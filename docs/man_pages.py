"""Writes the manual pages, from what `--help` says and from the pages of docs/reference: Markdown in, man(7) out.

Run `python docs/man_pages.py FOLDER`; it makes FOLDER/man1/unitctl.1 and so on. A package runs it when it is built, so
that no page is older than its program. What a program says of itself comes from the program (its USAGE, or click's
commands); a page of the reference gives the rest.
"""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import click

from supervisor.installation import version
from supervisor.unitctl.main import cli

REFERENCE = Path(__file__).resolve().parent / "reference"
SUMMARIES = {
    "unitctl": "command the units of a host",
    "unitctl-fleet": "command the units of many hosts",
    "unitd": "process supervisor for services that others send traffic to",
    "unit-center": "control center of a fleet of hosts that run unitd",
    "unit-gateway": "keeps gateways in step with the registry",
    "unitd.toml": "configuration of unitd",
    "unit-center.toml": "configuration of unit-center",
    "unit-gateway.toml": "configuration of unit-gateway",
}
SEE_ALSO = (
    "unitd(8), unitctl(1), unitctl-fleet(1), unit-center(8), unit-gateway(8), unitd.toml(5), unit-center.toml(5), "
    "unit-gateway.toml(5)"
)
SEE_MORE = "/usr/share/doc/unitd/docs, or /usr/local/share/doc/unitd/docs, has how-to guides and explanations."
PROGRAMS = {"unitd": "supervisor.boot", "unit-center": "control_center.boot", "unit-gateway": "gateway.boot"}
PAGES = {"unitd.toml": "configuration", "unit-center.toml": "center-configuration",
         "unit-gateway.toml": "gateway-configuration"}  # fmt: skip


def pages() -> dict[str, str]:
    """Every page that there is a source for: dict[`man1/unitctl.1`, its text]."""
    found = {"man1/unitctl.1": _unitctl(), "man1/unitctl-fleet.1": _unitctl_fleet()}
    for name, module in PROGRAMS.items():
        if find_spec(module) is not None:
            found[f"man8/{name}.8"] = _program(name, module)
    for name, source in PAGES.items():
        if (REFERENCE / f"{source}.md").exists():
            found[f"man5/{name}.5"] = _file(name, source)
    return found


# The pages.


def _unitctl() -> str:
    context = click.Context(cli, info_name="unitctl", **cli.context_settings)
    rows = [(command.name or "", command.get_short_help_str(200)) for command in _commands(cli, context)]
    overview = ["## Overview", "", "| | |", "|---|---|", *(f"| `{name}` | {text} |" for name, text in rows)]
    return _page("unitctl", 1, [
        ".SH SYNOPSIS", f"{_bold('unitctl')} {_escape('[OPTIONS] COMMAND [ARGUMENTS]')}",
        ".SH DESCRIPTION", *_paragraphs(cli.help or ""), *_paragraphs(cli.epilog or ""),
        *_roff("\n".join(overview)),
        *_roff(_body("unitctl").partition("\n## ")[2].join(("## ", "")), _usages(cli, context)),
        ".SH FILES", *_terms([("/etc/unitd/unitd.toml", "says where unitd listens; see unitd.toml(5)"),
                              ("/run/unitd/unitd.sock", "where unitd listens unless that says otherwise")]),
    ])  # fmt: skip


def _unitctl_fleet() -> str:
    root = click.Context(cli, info_name="unitctl", **cli.context_settings)
    fleet = cli.get_command(root, "fleet")
    assert isinstance(fleet, click.Group)
    context = click.Context(fleet, info_name="fleet", parent=root)
    usages = _usages(fleet, context)
    usage = context.get_usage().removeprefix("Usage: ")
    return _page("unitctl-fleet", 1, [".SH SYNOPSIS", _escape(usage), ".SH DESCRIPTION", *_paragraphs(fleet.help or ""),
                                      *_roff(_body("unitctl-fleet"), usages)])  # fmt: skip


def _commands(group: click.Group, context: click.Context) -> Iterator[click.Command]:
    for name in group.list_commands(context):
        if (command := group.get_command(context, name)) is not None and not command.hidden:
            yield command


def _usages(group: click.Group, context: click.Context) -> dict[str, str]:
    """How each command is called, by the heading of its section."""
    made = [click.Context(each, info_name=each.name, parent=context) for each in _commands(group, context)]
    return {each.command_path: " ".join([each.command_path, *each.command.collect_usage_pieces(each)]) for each in made}


def _program(name: str, module: str) -> str:
    program = import_module(module)
    lines: list[str] = []
    for block in program.USAGE.strip().split("\n\n"):
        lines += _usage_block(name, block.splitlines())
    codes = re.findall(r"(\d) ([a-z ]+)", program.main.__doc__)
    assert codes, f"{module}.main tells no exit code"
    lines += [".SH EXIT STATUS", *_terms(codes)]
    if name == "unitd":
        lines += _roff("## Environment of a unit\n" + re.sub(r"^## ", "### ", _body("environment"), flags=re.MULTILINE))
    lines += [".SH FILES", *_terms([(program.DEFAULT_CONFIG, f"see {name}.toml(5)")])]
    return _page(name, 8, lines)


def _usage_block(name: str, lines: list[str]) -> list[str]:
    """A block of a USAGE: how it is called, options, a paragraph, or one about something that it names."""
    if lines[0].startswith("Usage: "):
        calls = [line.removeprefix("Usage: ").strip() for line in lines]
        return [".SH SYNOPSIS", *"\n.br\n".join(map(_escape, calls)).splitlines(), ".SH DESCRIPTION"]
    if options := [line for line in lines if line.startswith("  ")]:
        title = ".SH OPTIONS" if lines[0].startswith("  ") else f".SS {_escape(lines[0].rstrip(':'))}"
        return [title, *_terms([tuple(re.split(r"\s{2,}", line.strip(), maxsplit=1)) for line in options])]
    subject, colon, rest = lines[0].partition(": ")
    if colon and " " not in subject:
        return [f".SH {subject.upper()}", *_paragraphs("\n".join([rest, *lines[1:]]))]
    return _paragraphs("\n".join(lines))


def _file(name: str, source: str) -> str:
    return _page(name, 5, [".SH DESCRIPTION", *_roff(_body(source))])


def _body(source: str) -> str:
    """A page of the reference without its title."""
    return (REFERENCE / f"{source}.md").read_text().split("\n", 1)[1].strip()


def _page(name: str, section: int, lines: Iterable[str]) -> str:
    when = time.strftime("%Y-%m-%d", time.gmtime(int(os.environ.get("SOURCE_DATE_EPOCH", time.time()))))
    head = [
        '.\\" Written by docs/man_pages.py.', f'.TH {name.upper()} {section} {when} "unitd {version()}"',
        ".SH NAME", f"{_escape(name)} \\- {_escape(SUMMARIES[name])}",
    ]  # fmt: skip
    others = SEE_ALSO.replace(f"{name}({section}), ", "").replace(f", {name}({section})", "")
    return "\n".join([*head, *_tidy(lines), ".SH SEE ALSO", _escape(others), ".PP", SEE_MORE, ""])


def _tidy(lines: Iterable[str]) -> Iterator[str]:
    """Without the paragraphs that a heading begins anyway."""
    before = ""
    for line in lines:
        if line != ".PP" or not before.startswith((".SH", ".SS")):
            yield line
            before = line


# Markdown as the reference writes it, into man(7).


@dataclass(slots=True)
class _Source:
    """The lines of a page that have still to be read."""

    lines: list[str]

    def take(self, *, until: str = "", while_: str = "") -> list[str]:
        """The next lines: up to one that matches `until`, which goes too; or as long as they match `while_`."""
        taken: list[str] = []
        while self.lines:
            line = self.lines[0]
            if while_ and not re.match(while_, line):
                break
            self.lines.pop(0)
            if until and re.match(until, line):
                break
            taken.append(line)
        return taken


def _roff(markdown: str, headings: dict[str, str] | None = None) -> list[str]:
    """A page; `headings` are said in place of some of its own."""
    source, lines = _Source(markdown.splitlines()), list[str]()
    while source.lines:
        line = source.lines[0]
        if line.startswith(("<!--", "![")) or not line.strip():
            source.lines.pop(0)
        elif line.startswith("#"):
            source.lines.pop(0)
            lines += _heading(line, headings or {})
        elif line.startswith("```"):
            source.lines.pop(0)
            lines += [".PP", ".RS 4", ".EX", *map(_literal, source.take(until="```")), ".EE", ".RE"]
        elif line.startswith("|"):
            lines += _table(source.take(while_=r"\|"))
        elif re.match(r"- |\d+\. ", line):
            lines += _list(source.take(while_=r"- |\d+\. |  +\S"))
        else:
            lines += _paragraphs("\n".join(source.take(while_=r"(?!```|\||#|- |<!--|\d+\. )\s*\S")))
    return lines


def _heading(line: str, headings: dict[str, str]) -> list[str]:
    level, _, text = line.partition(" ")
    said = headings.get(text, text).replace("`", "")
    return [f".SH {_escape(said.upper())}"] if len(level) == 2 else [f".SS {_escape(said)}"]


def _literal(line: str) -> str:
    return _guarded(_escape(line, code=True))


def _table(rows: list[str]) -> list[str]:
    """The first cell is the term; what is between it and the last one is told with its title."""
    head, _, *body = ([cell.strip().replace(r"\|", "|") for cell in re.split(r"(?<!\\)\|", row)[1:-1]] for row in rows)
    lines = []
    for first, *middle, last in body:
        lines += [".TP", _guarded(_inline(first)) or "\\&"]
        told = "; ".join(f"{title}: {_inline(cell)}" for title, cell in zip(head[1:-1], middle, strict=True) if cell)
        lines += [f"({told})", ".br"] if told else []
        lines.append(_guarded(_inline(last)) or "\\&")
    return lines


def _list(rows: list[str]) -> list[str]:
    lines: list[str] = []
    for row in rows:
        if match := re.match(r"(- |\d+\. )(.*)", row):
            lines += [".IP \\(bu 2" if match[1] == "- " else f".IP {match[1].strip()} 4", _guarded(_inline(match[2]))]
        else:
            lines.append(_guarded(_inline(row.strip())))
    return lines


def _terms(rows: Iterable[tuple[str, ...]]) -> list[str]:
    lines: list[str] = []
    for term, *text in rows:
        lines += [".TP", _bold(term), _guarded(_inline(text[0])) if text else "\\&"]
    return lines


def _paragraphs(text: str) -> list[str]:
    """Paragraphs are told from each other by an empty line; a span of code may go on in the next line."""
    lines: list[str] = []
    for paragraph in re.split(r"\n\s*\n", text.replace("\b", "").strip()):
        said = _inline("\n".join(line.strip() for line in paragraph.splitlines()))
        lines += [".PP", *map(_guarded, said.splitlines())] if said else []
    return lines


_SPAN = re.compile(
    r"``(?P<double>.+?)``|`(?P<code>[^`]+)`|\*\*(?P<bold>.+?)\*\*"
    r"|(?<![\w*':])\*(?P<italic>(?=\S)[^*\n]+)\*(?![\w'])"
    r"|\[(?P<text>(?:`[^`]*`|[^\]`])+)\]\((?P<url>[^)]+)\)",
    re.DOTALL,
)


def _inline(text: str) -> str:
    """Spans of a text: code and what is stressed in bold, links as their text, and their address if it is the web's."""
    out, at = [], 0
    for match in _SPAN.finditer(text):
        out.append(_escape(text[at : match.start()]))
        out.append(_span(match))
        at = match.end()
    return "".join([*out, _escape(text[at:])])


def _span(match: re.Match[str]) -> str:
    if (code := match["double"] or match["code"]) is not None:
        return _bold(code)
    if match["bold"]:
        return f"\\fB{_inline(match['bold'])}\\fR"
    if match["italic"]:
        return f"\\fI{_escape(match['italic'])}\\fR"
    where = f" <{_escape(match['url'])}>" if match["url"].startswith("http") else ""
    return f"{_inline(match['text'])}{where}"


def _bold(text: str) -> str:
    return f"\\fB{_escape(text, code=True)}\\fR"


_CODE = {"-": "\\-", "'": "\\(aq", "`": "\\(ga", "^": "\\(ha", "~": "\\(ti"}


def _escape(text: str, *, code: bool = False) -> str:
    """As it is, for roff; in code also the characters that it would make prettier."""
    table = {"\\": "\\e", **(_CODE if code else {"`": "\\(ga", "^": "\\(ha", "~": "\\(ti"})}
    return "".join(table.get(each, each if each.isascii() else f"\\[u{ord(each):04X}]") for each in text)


def _guarded(line: str) -> str:
    """A line that is no request."""
    return f"\\&{line}" if line.startswith((".", "'")) else line


def main() -> int:
    """Write all pages below the folder that is named."""
    (folder,) = sys.argv[1:]
    for name, text in pages().items():
        path = Path(folder, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
