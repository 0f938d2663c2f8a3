"""A whole HTML page around a piece of one: the few styles that there are, light and dark."""

from html import escape

from starlette.responses import HTMLResponse

_STYLE = """
:root { color-scheme: light dark; --line: #8886; --soft: #8882; --link: light-dark(#06629b, #6cb8ea); }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 0 auto; padding: 1.5rem; }
h1 { font-size: 1.6rem; margin: 0 0 .5rem; } h2 { font-size: 1.15rem; margin: 2rem 0 .5rem; }
a { color: var(--link); } code { font-family: ui-monospace, monospace; font-size: .9em; }
table { border-collapse: collapse; width: 100%; } th, td { text-align: left; padding: .35rem .75rem .35rem 0; }
th { font-weight: 600; } tr { border-bottom: 1px solid var(--line); } .number { text-align: right; }
.warning { border: 1px solid #b50; border-radius: .3rem; padding: .5rem .75rem; }
pre { background: var(--soft); padding: .75rem; border-radius: .3rem; overflow-x: auto; }
"""
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"


def page(title: str, body: str) -> HTMLResponse:
    """A page; `body` is HTML, `title` is not. Nothing on it may run, or come from elsewhere."""
    html = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{_STYLE}</style></head><body><main>{body}</main></body></html>"
    )
    headers = {
        "content-security-policy": _POLICY, "x-content-type-options": "nosniff", "referrer-policy": "no-referrer",
        "cache-control": "no-store",
    }  # fmt: skip
    return HTMLResponse(html, headers=headers)


def table(head: list[str], rows: list[list[str]], *, numbers: frozenset[int] = frozenset()) -> str:
    """A table of texts; columns of `numbers` are set to the right."""
    top = "".join(
        f'<th scope="col"{" class=number" if place in numbers else ""}>{escape(text)}</th>'
        for place, text in enumerate(head)
    )
    lines = [
        "<tr>"
        + "".join(
            f'<td class="number">{escape(text)}</td>' if place in numbers else f"<td>{escape(text)}</td>"
            for place, text in enumerate(row)
        )
        + "</tr>"
        for row in rows
    ]
    return f"<table><thead><tr>{top}</tr></thead><tbody>{''.join(lines)}</tbody></table>"
