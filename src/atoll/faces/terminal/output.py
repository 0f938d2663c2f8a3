"""What a command prints: a table for people, or JSON, YAML or bare names for programs."""

import json
import sys
from collections.abc import Callable, Iterable, Sequence
from enum import StrEnum
from typing import Any

_ESCAPED = {code: f"\\u{code:04x}" for code in range(0x7F, 0xA0)}
"""Control characters that JSON leaves as they are, and that steer some terminals."""
_CONTROL = {code: f"\\x{code:02x}" for code in (*range(32), *range(0x7F, 0xA0))}


class Format(StrEnum):
    """How a result is printed."""

    TABLE = "table"
    JSON = "json"
    YAML = "yaml"
    NAME = "name"


def say(text: str = "") -> None:
    """Print a line of the result."""
    sys.stdout.write(text + "\n")


def hint(text: str) -> None:
    """Tell the person something that is not the result."""
    sys.stdout.flush()
    sys.stderr.write(f"atoll: {text}\n")
    sys.stderr.flush()


def printable(text: object) -> str:
    """Text from elsewhere without what would steer the terminal."""
    return str(text).translate(_CONTROL)


def emit(
    output: Format,
    document: Any,
    *,
    names: Callable[[], Iterable[object]],
    table: Callable[[], None],
) -> None:
    """Print a result in the form that was asked for. `document` is plain data."""
    if output is Format.TABLE:
        table()
    elif output is Format.NAME:
        for name in names():
            say(str(name))
    else:
        say(dump(output, document))


def dump(output: Format, document: Any) -> str:
    """Plain data as JSON or YAML text, without the last line break."""
    if output is Format.JSON:
        return json.dumps(document, indent=2, ensure_ascii=False).translate(_ESCAPED)
    import yaml

    class Dumper(yaml.SafeDumper):
        """Texts of several lines as blocks, as people write scripts."""

    def text_node(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
        return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)

    Dumper.add_representer(str, text_node)
    text: str = yaml.dump(document, Dumper=Dumper, sort_keys=False, allow_unicode=True, default_flow_style=False)
    return text.rstrip("\n").removesuffix("\n...")


def one_or_many(documents: Sequence[Any]) -> Any:
    """What is printed for several things that were asked for: of one the thing itself, else the list."""
    return documents[0] if len(documents) == 1 else list(documents)
