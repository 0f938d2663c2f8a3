"""The OpenAPI document as a page for people, without scripts from elsewhere."""

from collections.abc import Iterator
from html import escape
from typing import Any

from starlette.responses import Response

from atoll.faces.web.page import page, table

_METHODS = ("get", "post", "put", "patch", "delete", "head")


def response(document: dict[str, Any]) -> Response:
    """The page."""
    title = f"{document['info']['title']} API"
    parts = [
        f"<h1>{escape(title)}</h1><p>Version {escape(document['info']['version'])}. The whole document: "
        '<a href="/api/v1/openapi.json">openapi.json</a>. Send a token with each request: '
        "<code>Authorization: Bearer TOKEN</code>.</p>"
    ]
    for path, methods in document["paths"].items():
        parts += [_operation(path, method, methods[method]) for method in _METHODS if method in methods]
    parts += _bodies(document)
    return page(title, "".join(parts))


def _operation(path: str, method: str, operation: dict[str, Any]) -> str:
    text = f"<h2><code>{method.upper()} {escape(path)}</code></h2><p>{escape(operation.get('description', ''))}</p>"
    rows = [
        [parameter["name"], parameter["in"], parameter.get("description", "")]
        for parameter in operation.get("parameters", ())
    ]
    if rows:
        text += table(["Parameter", "In", "Meaning"], rows)
    content = operation.get("requestBody", {}).get("content", {})
    for media_type, body in content.items():
        name = body.get("schema", {}).get("$ref", "").rpartition("/")[2]
        link = f'<a href="#{escape(name)}">{escape(name)}</a>' if name else ""
        text += f"<p>Body: {escape(media_type)} {link}</p>"
    answers = ", ".join(f"{status} {answer['description']}" for status, answer in operation["responses"].items())
    return text + f"<p>Answers: {escape(answers)}</p>"


def _bodies(document: dict[str, Any]) -> Iterator[str]:
    for name, schema in sorted(document["components"]["schemas"].items()):
        fields = schema.get("properties")
        if fields:
            rows = [[field, _kind(found), found.get("description", "")] for field, found in fields.items()]
            yield f'<h2 id="{escape(name)}">{escape(name)}</h2>' + table(["Field", "Type", "Meaning"], rows)


def _kind(schema: dict[str, Any]) -> str:
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(_kind(option) for option in schema["anyOf"]))
    if schema.get("type") == "array":
        return f"list of {_kind(schema.get('items', {}))}"
    return str(schema.get("type", "anything"))
