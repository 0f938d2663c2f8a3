"""The project tree as its operators write it: the file that `atoll project plan` and `apply` take."""

from collections.abc import Sequence
from datetime import date
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    TypeAdapter,
    ValidationError,
    WithJsonSchema,
    model_validator,
)

from atoll.core.documents import read_yaml
from atoll.core.errors import Invalid
from atoll.core.project import RESOURCES, Limit, Mistake, TreeNode, mistakes_in, refuse
from atoll.core.resources import MAX_AMOUNT, Bytes, Milli, format_milli
from atoll.core.spec import Document, Name, Text, explain_validation, printable_lines

MOST_PROJECTS = 20_000
_UNITS = ("", "Ki", "Mi", "Gi", "Ti", "Pi")


def _short(value: Any) -> Any:
    """`8` is short for `{nominal: 8}`."""
    return value if isinstance(value, dict) else {"nominal": value}


class _MilliLimit(Document):
    """A quota of CPUs or GPUs."""

    nominal: Milli = 0
    borrowing: Milli | None = None
    lending: Milli | None = None


class _BytesLimit(Document):
    """A quota of memory."""

    nominal: Bytes = 0
    borrowing: Bytes | None = None
    lending: Bytes | None = None


def _limit_schema(amount: dict[str, Any]) -> WithJsonSchema:
    absent = {"anyOf": [amount, {"type": "null"}]}
    properties = {"nominal": amount, "borrowing": absent, "lending": absent}
    whole = {"type": "object", "additionalProperties": False, "properties": properties}
    return WithJsonSchema({"anyOf": [amount, whole, {"type": "null"}]})


# no project has so much that a number could not say it; texts as in job specifications
_MILLI_SCHEMA = {
    "anyOf": [
        {"type": "number", "minimum": 0, "maximum": 1_000_000, "multipleOf": 0.001},
        {"type": "string", "pattern": r"^[0-9]{1,6}(m|\.[0-9]{1,3})?$"},
    ]
}
_BYTES_SCHEMA = {
    "anyOf": [
        {"type": "integer", "minimum": 0, "maximum": MAX_AMOUNT},
        {"type": "string", "pattern": r"^[0-9]{1,6}[KMGTP]?(i?B)?$"},
    ]
}
_Milli = Annotated[_MilliLimit | None, BeforeValidator(_short), _limit_schema(_MILLI_SCHEMA)]
_Bytes = Annotated[_BytesLimit | None, BeforeValidator(_short), _limit_schema(_BYTES_SCHEMA)]


class FlavorQuotas(Document):
    """Quotas of one flavor; what is left out is not the project's own."""

    cpu: _Milli = None
    memory: _Bytes = None
    gpu: _Milli = None


class ProjectEntry(Document):
    """All that is said of one project; its name stands before it."""

    parent: Annotated[Name | None, Field(description="The project above it. Only the root has none.")] = None
    weight: Annotated[float, Field(description="Its share beside its siblings.", json_schema_extra={
        "exclusiveMinimum": 0, "maximum": 1e9})] = 1.0  # fmt: skip
    quotas: Annotated[dict[Name, FlavorQuotas], Field(default_factory=dict, description="By flavor.")]
    people: Annotated[list[Text], Field(default_factory=list, max_length=10_000, description="Who may submit to it.")]
    managers: Annotated[list[Text], Field(default_factory=list, max_length=1000, description="Who may change people.")]
    clearance: Annotated[list[Text], Field(default_factory=list, max_length=100,
        description="Words that sites must have for its jobs, and for those of all below it.")]  # fmt: skip
    description: Annotated[str, Field(max_length=1000), AfterValidator(printable_lines)] = ""
    ends: Annotated[date | None, Field(description="The last day on which jobs may be submitted to it.")] = None

    @model_validator(mode="before")
    @classmethod
    def _empty(cls, value: Any) -> Any:
        return {} if value is None else value  # `astro:` with nothing behind it

    def node(self, name: str) -> TreeNode:
        """The entry as a node of the tree."""
        limits = {
            (flavor, resource): Limit(limit.nominal, limit.borrowing, limit.lending)
            for flavor, quotas in self.quotas.items()
            for resource in RESOURCES
            if (limit := getattr(quotas, resource)) is not None
        }
        return TreeNode(
            name, self.parent, self.weight, limits, tuple(sorted(set(self.people))), tuple(sorted(set(self.managers))),
            tuple(sorted(set(self.clearance))), self.description, self.ends,
        )  # fmt: skip


class ProjectFile(Document):
    """The whole tree. No projects at all: quotas are not used."""

    projects: Annotated[dict[Name, ProjectEntry], Field(max_length=MOST_PROJECTS, description="By name.")]


_NAMED = TypeAdapter(Name)
_KNOWN = {
    "": list(ProjectEntry.model_fields), "quotas": [*RESOURCES, "nominal", "borrowing", "lending"],
}  # fmt: skip


def read_projects(document: Any) -> list[TreeNode]:
    """The nodes that plain data says. Raises Invalid with all mistakes, each naming its field."""
    if not isinstance(document, dict) or not isinstance(document.get("projects"), dict):
        raise Invalid("invalid_projects", "Write the tree as projects: {NAME: {parent: NAME, ...}}.", field="projects")
    unknown = sorted(str(key) for key in document if key != "projects")
    mistakes: list[Mistake] = [(key, "There is no such field; a project file has only `projects`.") for key in unknown]
    if len(document["projects"]) > MOST_PROJECTS:
        raise Invalid("invalid_projects", f"A tree has at most {MOST_PROJECTS} projects.", field="projects")
    nodes: list[TreeNode] = []
    for name, entry in document["projects"].items():
        try:
            _NAMED.validate_python(name)
            nodes.append(ProjectEntry.model_validate(entry).node(name))
        except ValidationError as error:
            found = explain_validation(error, _KNOWN, "projects", f"projects.{str(name)[:80]}.")
            listed = found.errors or (("", found.sentence),)
            mistakes += [(field.rstrip(".") or "projects", sentence) for field, sentence in listed]
            nodes.append(_outline(name, entry))
    refuse(mistakes + mistakes_in(nodes))
    return nodes


def _outline(name: Any, entry: Any) -> TreeNode:
    """What can be known of an entry that is wrong, so that others may name it."""
    parent = entry.get("parent") if isinstance(entry, dict) else None
    return TreeNode(str(name), parent if isinstance(parent, str) else None)


def read_project_file(text: bytes, where: str) -> list[TreeNode]:
    """The nodes that a YAML or JSON file says; `where` names it in errors. Raises Invalid."""
    return read_projects(read_yaml(text, where))


def write_projects(nodes: Sequence[TreeNode]) -> dict[str, Any]:
    """The inverse of `read_projects`: plain data as short as a person would write it, from the root down."""
    return {"projects": {node.name: _entry(node) for node in nodes}}


def _entry(node: TreeNode) -> dict[str, Any]:
    entry: dict[str, Any] = {}
    if node.parent is not None:
        entry["parent"] = node.parent
    if node.weight != 1:
        entry["weight"] = int(node.weight) if node.weight.is_integer() else node.weight
    quotas: dict[str, Any] = {}
    for (flavor, resource), limit in sorted(node.quotas.items()):
        quotas.setdefault(flavor, {})[resource] = write_limit(resource, limit)
    rest = {
        "quotas": quotas, "people": list(node.people), "managers": list(node.managers),
        "clearance": list(node.clearance), "description": node.description,
        "ends": node.ends.isoformat() if node.ends else None,
    }  # fmt: skip
    return entry | {name: value for name, value in rest.items() if value}


def write_limit(resource: str, limit: Limit) -> Any:
    """A limit as a file has it: `8`, `4Ti`, or `{nominal: 8, borrowing: 4}`."""
    amounts = {
        name: write_amount(resource, amount)
        for name in ("nominal", "borrowing", "lending")
        if (amount := getattr(limit, name)) is not None
    }
    return amounts["nominal"] if len(amounts) == 1 else amounts


def write_amount(resource: str, amount: int) -> int | str:
    """An amount as people write it, and exactly: `8`, `500m`, `4Ti`."""
    if resource != "memory":
        return int(format_milli(amount)) if amount % 1000 == 0 else format_milli(amount)
    unit = 0
    while amount and amount % 1024 == 0 and unit < len(_UNITS) - 1:
        amount //= 1024
        unit += 1
    return f"{amount}{_UNITS[unit]}" if unit else amount
