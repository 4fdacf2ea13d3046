"""What the Ray launcher adds to cells of one second: three simulated nodes beside one local worker, in the same run."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

APP = Path(__file__).parents[1] / "tests" / "ray_app"
NODES, ROUNDS = 3, 5


@pytest.fixture
def cluster(monkeypatch):
    """The address of a head without CPUs and of nodes of one CPU each."""
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    from ray.cluster_utils import Cluster

    simulated = Cluster()
    simulated.add_node(num_cpus=0, include_dashboard=False)
    for _ in range(NODES):
        simulated.add_node(wait=False, num_cpus=1)
    simulated.wait_for_nodes()
    yield simulated.address
    simulated.shutdown()


def seconds_a_round(run, cells, at_once, *flags):
    """Wall time from the end of the first round to that of the last, by when the cells were written, per round."""
    settings = ["--cells", str(cells), "--seconds", "1", "--run-dir", str(run / "run"), "--wandb", "disabled"]
    shutil.copytree(APP, run / "program")  # the app takes away what only a driver has
    subprocess.run([sys.executable, run / "program" / "app.py", *settings, *flags], check=True, cwd=run / "program")
    written = sorted(path.stat().st_mtime for path in (run / "run" / "cells").glob("*.json"))
    assert len(written) == cells
    return (written[-1] - written[at_once - 1]) / (cells / at_once - 1)


def test_ray_adds_at_most_a_tenth_to_cells_of_a_second(cluster, tmp_path):
    """Ratio of a round's time on Ray to that on one worker."""
    serial = seconds_a_round(tmp_path / "serial", ROUNDS + 1, 1, "--workers", "1")
    ray = seconds_a_round(tmp_path / "ray", NODES * (ROUNDS + 1), NODES, "--launcher", "ray", "--ray-address", cluster)
    print(f"\na round of cells of one second: {serial:.3f} s on one worker, {ray:.3f} s on {NODES} Ray nodes", end="")
    print(f" on {os.cpu_count()} cores: {ray / serial - 1:+.1%}")
    assert ray <= 1.1 * serial
