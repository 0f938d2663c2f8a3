"""The first page: that Atoll is up, what runs, where the API document is."""

from collections.abc import Mapping, Sequence
from html import escape

from starlette.responses import Response

from atoll.core.site import Site
from atoll.core.states import ENDED, JobState
from atoll.faces.web.page import page, table


def response(version: str, counts: Mapping[str, int] | None, sites: Sequence[Site], trouble: str | None) -> Response:
    """The page. `counts` is None for visitors who are not told."""
    parts = [f"<h1>Atoll is up</h1><p>Version {escape(version)}. "]
    parts.append(
        '<a href="/api/docs">What the API offers</a> · <a href="/api/v1/openapi.json">OpenAPI document</a></p>'
    )
    if trouble is not None:
        parts.append(f'<p class="warning" role="alert">{escape(trouble)}</p>')
    if counts is not None:
        parts.append(_jobs(counts) + _sites(sites))
    parts.append(
        "<h2>Use it</h2><pre>atoll submit -- echo hello\natoll ps\natoll logs 1</pre>"
        "<p>The command line finds this platform by <code>ATOLL_DATA</code>, "
        "or by <code>ATOLL_URL</code> and <code>ATOLL_TOKEN</code>.</p>"
    )
    return page("Atoll", "".join(parts))


def _jobs(counts: Mapping[str, int]) -> str:
    rows = [[state.value, str(counts.get(state, 0))] for state in JobState if state not in ENDED]
    return "<h2>Jobs that have not ended</h2>" + table(["State", "Jobs"], rows, numbers=frozenset({1}))


def _sites(sites: Sequence[Site]) -> str:
    if not sites:
        return "<h2>Sites</h2><p>There is no site yet.</p>"
    rows = [
        [site.name, site.driver, site.health.value,
         "; ".join(f"{flavor.name}: {flavor.total}" for flavor in site.report.flavors) if site.report else ""]
        for site in sites
    ]  # fmt: skip
    return "<h2>Sites</h2>" + table(["Site", "Driver", "Health", "Has"], rows)
