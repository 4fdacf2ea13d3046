"""A run is refused before it takes more than there is, and what there is is read from the machine and its limits."""

import math
from dataclasses import dataclass

import pytest

import gm_lab
from gm_lab.run import resources
from gm_lab.run.resources import Need, _left, _of_groups, available, require

GB = 1e9


@dataclass(frozen=True)
class Settings(gm_lab.RunSettings):
    """What takes most is to be named."""

    mdps: int = 1
    horizon: tuple[int, ...] | None = None
    seconds: float = 1.0


def need(settings):
    """A gigabyte for each step, ten bytes a cell."""
    return Need(settings.mdps, settings.mdps, GB * max(settings.horizon or (1,)), settings.seconds * settings.mdps)


@pytest.fixture
def asked(monkeypatch):
    """The lines that are said before a run begins, with 8 GB of memory."""
    monkeypatch.setattr(resources, "available", lambda: 8 * GB)

    def lines(**flags):
        said = []
        require(need, Settings(**{"workers": 1} | flags), 10, said.append)
        return said

    return lines


def test_what_fits_is_begun_without_a_word(asked):
    assert asked() == asked(mdps=1000, horizon=(2, 8)) == []


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (
            {"horizon": (3, 9)},
            "--horizon: expected a run that fits into memory; a cell takes about 9 GB, 8 GB is available, got 3 9",
        ),
        (
            {"mdps": 10**9, "horizon": (9,), "seconds": 0.1},
            "--mdps: expected a run that fits into memory; its cells and results take about 2.1e+03 GB, 8 GB is "
            "available, got 1000000000",
        ),
        ({"mdps": 10**400}, "--mdps: expected a run that fits into memory; its cells and results take about 1e+291 GB"),
        ({"mdps": 10**5000}, "8 GB is available, got a number of thousands of digits"),
        (
            {"mdps": 1000, "workers": 900},
            "--workers: expected a run that fits into memory; its workers take about 9 GB",
        ),
        ({"seconds": 1e12}, "--seconds: expected a run of at most 10 years; it takes about 3.2e+04 years, got 1e12"),
        ({"horizon": (17593,), "launcher": "ray"}, "a cell takes about 1.76e+04 GB"),
    ],
)
def test_what_does_not_fit_is_one_line_that_names_the_flag(asked, flags, line):
    with pytest.raises(gm_lab.BadInput) as refused:
        asked(**flags)
    assert line.replace("1e12", "1000000000000.0") in str(refused.value)
    assert "\n" not in str(refused.value)


def test_elsewhere_there_may_be_more_memory_than_here(asked):
    assert asked(horizon=(100,), launcher="ray") == asked(horizon=(100,), device="cuda") == []


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        ({"seconds": 3 * 3600.0}, "all of this run takes about 3 hours with 1 worker"),
        ({"seconds": 3600.0, "mdps": 100, "workers": 2}, "all of this run takes about 2.1 days with 2 workers"),
        ({"seconds": 7200.0, "launcher": "ray"}, "all of this run takes about 2 hours with one core"),
        (
            {"horizon": (3,), "mdps": 4, "workers": 3},
            "warning: 3 workers take about 9 GB together, 8 GB is available; fewer --workers take less",
        ),
    ],
)
def test_a_long_run_and_many_workers_are_announced(asked, flags, line):
    assert asked(**flags) == [line]


def test_needs_add_up_and_memory_is_that_of_the_largest_cell():
    assert Need(1, 2, 3, 4) + Need(10, 20, 2, 40) == Need(11, 22, 3, 44)


def test_there_is_memory_here():
    assert 2**20 < available() < 2**60


def group(folder, **files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(f"{text}\n")


def test_the_smallest_rest_of_all_limits_counts(tmp_path):
    """Version 2 of control groups: limits of a group and those above it; pages of files can be had back."""
    group(tmp_path, memory__max=1000, memory__current=100, memory__stat="anon 5\ninactive_file 20")
    group(tmp_path / "a", memory__max="max", memory__current=90, memory__stat="inactive_file 0")
    group(tmp_path / "a" / "b", memory__max=300, memory__current=90, memory__stat="inactive_file 40")
    process = tmp_path / "cgroup"
    process.write_text("0::/a/b\n")
    assert sorted(_of_groups(process, tmp_path)) == [250.0, 920.0]


def test_limits_of_the_first_version_are_read_too(tmp_path):
    limits = {"memory__limit_in_bytes": 500, "memory__usage_in_bytes": 400, "memory__stat": "total_inactive_file 50"}
    group(tmp_path / "memory" / "job", **limits)
    process = tmp_path / "cgroup"
    process.write_text("9:name=systemd:/\n4:memory:/job\n0::/\n")
    assert list(_of_groups(process, tmp_path)) == [150.0]


def test_where_nothing_is_known_nothing_is_refused(tmp_path, monkeypatch):
    assert list(_of_groups(tmp_path / "none", tmp_path)) == []
    assert list(_left(tmp_path, "limit", "usage", "inactive")) == []
    monkeypatch.setattr(resources, "_of_machine", lambda: iter(()))
    monkeypatch.setattr(resources, "_of_groups", lambda: iter(()))
    assert available() == resources.ANYWHERE < math.inf
