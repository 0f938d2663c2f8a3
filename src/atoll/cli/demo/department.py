"""Who and what there is in the demonstration: five sites, a project tree with quotas, thirty people."""

from typing import Any

GPUS = {"gpu-a100": 48, "gpu-l40s": 16, "gpu-h100": 16}
CPUS = 960
HOUR = 3600

PEOPLE = {
    "stars": ("amara.okafor", "jonas.weber", "mei.tanaka", "lucia.ferrari"),
    "climate": ("sofia.lindqvist", "tariq.haddad", "elena.petrova", "noah.bakker"),
    "plasma": ("ivan.horvat", "chloe.martin", "rafael.souza"),
    "genomes": ("priya.nair", "oscar.nilsson", "hannah.cohen", "diego.ramos"),
    "imaging": ("yuki.mori", "clara.schmidt", "femi.adeyemi"),
    "neurons": ("lea.rossi", "samuel.kim", "ana.kovac"),
    "vision": ("wei.zhang", "ines.duarte", "max.fischer", "zara.khan"),
    "language": ("arjun.mehta", "freya.olsen", "tomas.novak"),
    "teaching": ("maria.silva", "max.fischer", "clara.schmidt", "tariq.haddad", "ana.kovac"),
}
"""By project; some are in two. Whoever started the demonstration is the thirtieth, in `OWN_PROJECTS`."""
OWN_PROJECTS = ("vision", "teaching")


def _quota(nominal: int, borrowing: int | None = None, lending: int | None = None) -> dict[str, int]:
    limits = {"nominal": nominal, "borrowing": borrowing, "lending": lending}
    return {name: limit for name, limit in limits.items() if limit is not None}


def tree(owner: str) -> dict[str, Any]:
    """The content of a project file; `owner` is the person who started it all."""
    entries: dict[str, Any] = {
        "institute": {"description": "All of the institute.", "quotas": {
            "cpu": {"cpu": 120}, "gpu-a100": {"gpu": 8}, "gpu-h100": {"gpu": 4}}},
        "physics": {"parent": "institute", "weight": 3, "quotas": {"cpu": {"cpu": 80}}},
        "life": {"parent": "institute", "weight": 2, "quotas": {"gpu-l40s": {"gpu": 2}}},
        "informatics": {"parent": "institute", "weight": 3, "quotas": {"gpu-a100": {"gpu": 4}}},
    }  # fmt: skip
    shares: dict[str, tuple[str, float, str, dict[str, Any]]] = {
        "stars": ("physics", 2, "Surveys of the southern sky.", {"cpu": {"cpu": _quota(160)}}),
        "climate": ("physics", 2, "Regional ensembles.", {
            "cpu": {"cpu": _quota(200, 160)}, "gpu-a100": {"gpu": _quota(8)}, "gpu-h100": {"gpu": _quota(2)}}),
        "plasma": ("physics", 1, "Turbulence in tokamaks.", {"cpu": {"cpu": _quota(160, None, 80)}}),
        "genomes": ("life", 2, "Long reads, and their variants.", {"cpu": {"cpu": _quota(140, 200)}}),
        "imaging": ("life", 1, "Light sheets and tissues.", {
            "cpu": {"cpu": _quota(20)}, "gpu-l40s": {"gpu": _quota(8, 4)}}),
        "neurons": ("life", 1, "Recordings of many probes.", {
            "cpu": {"cpu": _quota(40)}, "gpu-l40s": {"gpu": _quota(4)}}),
        "vision": ("informatics", 2, "Seeing machines.", {
            "cpu": {"cpu": _quota(20)}, "gpu-a100": {"gpu": _quota(16, 12)}}),
        "language": ("informatics", 2, "Models of small languages.", {
            "cpu": {"cpu": _quota(10)}, "gpu-a100": {"gpu": _quota(12)}, "gpu-h100": {"gpu": _quota(10)}}),
        "teaching": ("informatics", 1, "Courses and exercises.", {
            "cpu": {"cpu": _quota(10, 40)}, "gpu-l40s": {"gpu": _quota(2, 0)}}),
    }  # fmt: skip
    for name, (parent, weight, description, quotas) in shares.items():
        people = [*PEOPLE[name], *([owner] if name in OWN_PROJECTS else [])]
        entries[name] = {
            "parent": parent, "weight": weight, "description": description, "quotas": quotas, "people": people,
            "managers": [people[0]],
        }  # fmt: skip
    return entries


def sites(speed: float) -> list[dict[str, Any]]:
    """The site files; the outage is `speed` times as short as it is meant, but so long that it is noticed."""
    lasts = max(15, 0.75 * HOUR / speed)
    outage = {
        "after": 2 * HOUR / speed, "lasts": lasts, "every": 12 * lasts,
        "message": "ssh: connect to host login.mistral port 22: Connection timed out",
    }  # fmt: skip
    return [
        _site("hopper", "slurm", "eu-central", {"flavor": "cpu", "nodes": 20, "cpus": 32, "memory": "192G"},
              queues=True, price=0.02, energy=310),
        _site("mistral", "htcondor", "eu-central", {"flavor": "cpu", "nodes": 40, "cpus": 8, "memory": "32G",
              "outage": outage}, queues=True, price=0.01, energy=310),
        _site("kestrel", "kubernetes", "eu-central", {"flavor": "gpu-a100", "nodes": 6, "cpus": 64, "memory": "1T",
              "gpus": 8, "owned": True}, price=1.4, energy=95),
        _site("wren", "podman", "eu-central", {"flavor": "gpu-l40s", "nodes": 4, "cpus": 48, "memory": "512G",
              "gpus": 4, "owned": True}, price=0.6, energy=95),
        _site("aurora", "interlink", "eu-north", {"flavor": "gpu-h100", "nodes": 4, "cpus": 72, "memory": "480G",
              "gpus": 4}, queues=True, shared=True, price=2.2, energy=20),
    ]  # fmt: skip


def _site(
    name: str, engine: str, region: str, config: dict[str, Any], *, price: float, energy: float, queues: bool = False,
    shared: bool = False,
) -> dict[str, Any]:  # fmt: skip
    gpu = "gpus" in config
    return {
        "name": name, "driver": "fake", "labels": {"engine": engine, "region": region},
        "identity": "shared" if shared else {"map": "same-name"},
        "price": {"gpu": price} if gpu else {"cpu": price}, "energy": energy, "config": {**config, "queues": queues},
    }  # fmt: skip


def configuration(speed: float) -> str:
    """The platform's configuration: no site of its own, and a queue whose times are `speed` times as short."""
    return "\n".join([
        "local: {enabled: false}",
        "queue:",
        f"  half_life: {max(60, round(7 * 24 * HOUR / speed))}",
        f"  max_wait: {max(60, round(24 * HOUR / speed))}",
        f"  notice: {round(HOUR / 4 / speed)}",
        f"  minimum_run: {{batch: {round(HOUR / 2 / speed)}}}",
        f"  walltimes: {{interactive: {max(1, round(8 * HOUR / speed))}, batch: {max(1, round(24 * HOUR / speed))}, "
        f"opportunistic: {max(1, round(24 * HOUR / speed))}}}",
        "",
    ])  # fmt: skip
