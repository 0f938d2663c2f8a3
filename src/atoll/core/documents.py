"""Reading YAML as people mean it.

YAML 1.1 makes `on` a truth value, `1:30:00` a number in base sixty and `2026-05-01` a date; a job file has a field
`on`, durations and dates, so these stay text here, as in YAML 1.2. A key that is written twice is an error.
"""

import re
from typing import Any

import yaml

from atoll.core.errors import Invalid

MAX_DEPTH = 50
"""Deepest nesting that a document may have."""


class _Loader(yaml.SafeLoader):
    """YAML with the scalar types of JSON."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self.depth = 0

    def _problem(self, sentence: str) -> yaml.MarkedYAMLError:
        return yaml.composer.ComposerError(None, None, sentence, self.get_mark())

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise self._problem("aliases (*name) are not supported; write the value out")
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise self._problem("it is nested too deeply")
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, "a key must be a word", key.start_mark)
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{key.value!r} is written twice", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {}
for _tag, _form, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("int", r"[-+]?(0|[1-9][0-9]{0,30})", "-+0123456789"),
    ("float", r"[-+]?([0-9]{1,30}\.[0-9]{0,30}|\.[0-9]{1,30})([eE][-+]?[0-9]{1,3})?", "-+.0123456789"),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_form})$"), list(_first))


def read_yaml(text: str | bytes, what: str = "file") -> Any:
    """The plain data that YAML (or JSON) text says. Raises Invalid with the line where it cannot be read."""
    try:
        decoded = text.decode("utf-8-sig") if isinstance(text, bytes) else text
        return yaml.load(decoded, Loader=_Loader)  # noqa: S506  (a SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f" line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        said = " ".join(filter(None, (error.context, error.problem)))
        raise Invalid("bad_yaml", f"The {what} is no YAML:{where}: {said}.") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise Invalid("bad_yaml", f"The {what} is no YAML: {first.rstrip('.')}.") from None


def line_of(text: str, field: str) -> int | None:
    """The line, from 1, at which a field as `config.nodes` or `clearance.0` stands in YAML that could be read.

    Where it is not there, that of what it would be in; None for what is nowhere.
    """
    node, line = yaml.compose(text, Loader=_Loader), None
    for part in field.split("."):
        if isinstance(node, yaml.MappingNode):
            found = next((pair for pair in node.value if pair[0].value == part), None)
        elif isinstance(node, yaml.SequenceNode) and part.isdecimal() and int(part) < len(node.value):
            found = (node.value[int(part)],) * 2
        else:
            found = None
        if found is None:
            break
        line, node = found[0].start_mark.line + 1, found[1]
    return line
