"""A kind of contract for import-linter: what a module may import, where the others say what it may not."""

from __future__ import annotations

from typing import cast

import grimp
from importlinter import Contract, ContractCheck, fields, output


class OnlyContract(Contract):
    """Of this project, `modules` and what lies below them import only `may_import`, and each other.

    Other packages are free. Imports by way of others are not followed: what may be imported has a contract of
    its own. An expression with a wildcard may match nothing, so that rules can be there before their rooms.
    """

    type_name = "only"

    modules = fields.ListField(subfield=fields.StringField())
    may_import = fields.ListField(subfield=fields.StringField(), required=False, default=[])

    def check(self, graph: grimp.ImportGraph, verbose: bool) -> ContractCheck:
        """Find the direct imports that are not in the list."""
        allowed = cast("list[str]", self.may_import)
        forbidden = [
            (importer, imported, line)
            for expression in cast("list[str]", self.modules)
            for top in sorted(graph.find_matching_modules(expression))
            for importer in sorted({top, *graph.find_descendants(top)})
            for imported in sorted(graph.find_modules_directly_imported_by(importer))
            if not graph.is_module_squashed(imported)  # squashed: somebody else's package
            if not any(_within(imported, package) for package in (top, *allowed))
            for line in _lines(graph, importer, imported)
        ]
        return ContractCheck(kept=not forbidden, metadata={"forbidden": forbidden})

    def render_broken_contract(self, check: ContractCheck) -> None:
        """Print one line for each import that breaks the rule."""
        allowed = ", ".join(cast("list[str]", self.may_import)) or "nothing of the project"
        for importer, imported, line in check.metadata["forbidden"]:
            text = f"{importer} imports {imported} (line {line}); it may import {allowed}"
            output.print_error(text, bold=False)
        output.new_line()


def _within(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


def _lines(graph: grimp.ImportGraph, importer: str, imported: str) -> list[int]:
    details = graph.get_import_details(importer=importer, imported=imported)
    return sorted({detail["line_number"] for detail in details})
