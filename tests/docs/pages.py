"""The commands that the documentation tells people to type, found in its Markdown.

Between the comments `<!-- run -->` and `<!-- end run -->` of a page every fenced block is run, in order, by one shell
on one fresh platform:

    sh        is run as it stands, and must end with exit code 0
    console   lines that begin with `$ ` are commands (`> ` continues one); what follows is what they print
    python    is run by Python
    yaml, ... with a comment `<!-- file NAME -->` before it is written to that file; without one it is only read

A comment `<!-- exit N -->` before a block says that its last command ends with N instead of 0. In what a command
prints, `...` stands for any text, a line of `...` for any lines, a number for any number, and blanks for any blanks.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
RUNNABLE = ("sh", "console", "python")

_PIECE = re.compile(
    r"^<!--\s*(?P<comment>.*?)\s*-->[ \t]*$"
    r"|^(?P<fence>`{3,})(?P<language>\w*)[^\n]*\n(?P<body>.*?)^(?P=fence)[ \t]*$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Command:
    """Something to run: shell or Python, the line of the page where it stands, and what should come of it."""

    language: str
    text: str
    line: int
    exit_code: int = 0
    expected: str | None = None
    """What it prints, None where the page does not say."""
    writes: str | None = None
    """The file that `text` is written to; then nothing is run."""


@dataclass(frozen=True)
class Block:
    """A fenced block, and whether it stands where blocks are run."""

    language: str
    body: str
    line: int
    runs: bool
    exit_code: int = 0
    writes: str | None = None


def blocks(page: Path) -> Iterator[Block]:
    """The fenced blocks of a page. Raises ValueError for a comment of the convention that is misused."""
    text = page.read_text()
    running, exit_code, writes = False, 0, None
    for piece in _PIECE.finditer(text):
        line = text.count("\n", 0, piece.start()) + 1
        word, _, rest = (piece["comment"] or "").partition(" ")
        if piece["fence"] is not None:
            yield Block(piece["language"], piece["body"], line + 1, running, exit_code, writes)
            exit_code, writes = 0, None
        elif piece["comment"] == "run" and not running:
            running = True
        elif piece["comment"] == "end run" and running:
            running = False
        elif word == "exit" and running:
            exit_code = int(rest)
        elif word == "file" and running:
            writes = rest
        elif word in ("run", "end", "exit", "file"):
            raise ValueError(f"{page.name} line {line}: <!-- {piece['comment']} --> cannot stand here")
    if running:
        raise ValueError(f"{page.name}: <!-- run --> has no <!-- end run -->")


def commands(page: Path) -> list[Command]:
    """What is to be run of a page, in order."""
    found: list[Command] = []
    for block in blocks(page):
        if block.runs and block.writes is not None:
            found.append(Command(block.language, block.body, block.line, writes=block.writes))
        elif block.runs and block.language == "console":
            found += _console(block)
        elif block.runs and block.language in RUNNABLE:
            found.append(Command(block.language, block.body, block.line, block.exit_code))
    return found


def _console(block: Block) -> list[Command]:
    typed: list[tuple[str, int, list[str]]] = []
    for number, line in enumerate(block.body.splitlines(), block.line):
        if line.startswith("$ "):
            typed.append((line[2:], number, []))
        elif not typed:
            raise ValueError(f"line {number}: a console block begins with a command, as in: $ atoll ps")
        elif line.startswith("> ") and not typed[-1][2]:
            typed[-1] = (typed[-1][0] + "\n" + line[2:], typed[-1][1], [])
        else:
            typed[-1][2].append(line)
    return [
        Command(
            "console", text, number, block.exit_code if place == len(typed) else 0, "\n".join(shown) if shown else None
        )
        for place, (text, number, shown) in enumerate(typed, 1)
    ]


def matches(expected: str, printed: str) -> bool:
    """Whether what was printed is what the page shows, by the convention above."""
    parts = [_line_pattern(line) for line in expected.strip().splitlines() if line.strip()]
    pattern = "".join(parts)
    lines = [" ".join(line.split()) for line in printed.splitlines() if line.strip()]
    return re.fullmatch(pattern, "".join(f"{line}\n" for line in lines)) is not None


def _line_pattern(line: str) -> str:
    words = " ".join(line.split())
    if words == "...":
        return r"(?:.*\n)*?"
    pieces = [re.sub(r"\d+", r"\\d+", re.escape(piece)) for piece in words.split("...")]
    return ".*?".join(pieces) + r"\n"
