"""What needs several real engines is played once in small: the demonstration over sites, and Slurm beside its peer."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import demo_sites, slurm_site
from tests.support.slurm import need_slurm


def test_demonstration_over_several_sites_accounts_for_every_job(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    need_slurm()
    assert demo_sites.main(["--jobs", "40", "--out", str(tmp_path)]) == 0
    told = capsys.readouterr().out
    assert "40 jobs: 40 succeeded" in told
    assert "ran twice: 0" in told
    for moment in ("slurm-a joins", "slurm-b goes down", "slurm-b comes back", "every job has ended"):
        assert moment in told
    assert (tmp_path / "sites.png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in (tmp_path / "sites.svg").read_text()
    assert "| slurm-a |" in (tmp_path / "sites.md").read_text()


def test_slurm_is_measured_beside_its_peer_in_small(tmp_path: Path) -> None:
    need_slurm()
    rows = {row.name: row for row in slurm_site.measure(tmp_path, small=True)}
    peers = {row.peer for row in rows.values()}
    assert {"PSI/J", "sbatch"} <= peers
    assert all(row.values and min(row.values) >= 0 for row in rows.values())
