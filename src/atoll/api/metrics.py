"""Figures for Prometheus, read from the store at each question."""

from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Gauge, Info, generate_latest
from sqlalchemy import Connection

from atoll.core.site import Health, Site
from atoll.core.states import ENDED, JobState
from atoll.store import events, figures, jobs, sites

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"


@dataclass(frozen=True)
class Figures:
    """What is counted."""

    states: dict[str, int]
    used: dict[tuple[str, str], figures.Used]
    sites: list[Site]
    event: int


def read(connection: Connection) -> Figures:
    """Count."""
    return Figures(
        jobs.count_by_state(connection), figures.used(connection), sites.load(connection), events.last_id(connection)
    )


def render(found: Figures, version: str) -> bytes:
    """The figures as Prometheus reads them."""
    registry = CollectorRegistry()
    Info("atoll", "This platform.", registry=registry).info({"version": version})
    states = Gauge("atoll_jobs", "Jobs that have not ended, arrays as one.", ["state"], registry=registry)
    for state in JobState:
        if state not in ENDED:
            states.labels(state.value).set(found.states.get(state, 0))
    Gauge("atoll_events_total", "Id of the newest event.", registry=registry).set(found.event)
    up = Gauge("atoll_site_up", "Whether the site answers.", ["site"], registry=registry)
    names = ["site", "flavor", "resource"]
    total = Gauge("atoll_site_total", "What the site has: milli-CPU, bytes, milli-GPU.", names, registry=registry)
    taken = Gauge("atoll_site_used", "What attempts of this platform hold.", names, registry=registry)
    for site in found.sites:
        up.labels(site.name).set(site.health is Health.OK)
        for flavor in site.report.flavors if site.report else ():
            used = found.used.get((site.name, flavor.name))
            for resource in ("cpu", "memory", "gpu"):
                total.labels(site.name, flavor.name, resource).set(getattr(flavor.total, resource))
                value = getattr(used.resources, resource) if used else 0
                taken.labels(site.name, flavor.name, resource).set(value)
    return generate_latest(registry)
