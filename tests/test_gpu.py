"""The GPU's benchmark in small on the CPU: what it will say there can be trusted only if every step of it runs here."""

import json

import gpu
from threads import one_thread  # noqa: F401


def test_every_quick_step_of_the_gpu_benchmark_runs_on_the_cpu(tmp_path):
    """Where the device is the CPU, nothing differs from the CPU; each step has its heading on the page."""
    steps = ["machine", "agreement", "exact", "atari", "training"]
    flags = ["--device", "cpu", "--small", "--seconds", "0.001", "--out", str(tmp_path), "--steps", *steps]
    status = gpu.main(flags)
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert list(figures) == steps
    assert status == 0, [found["failed"] for found in figures.values() if "failed" in found]
    differences = {name: value for name, value in figures["agreement"].items() if name != "seconds"}
    assert differences.pop("meta-gradient of MGRL, CPU, θ as TF32") > 0
    assert differences == dict.fromkeys(differences, 0.0)
    assert len(differences) == 13
    assert all(row["factor"] > 0 for name, row in figures["exact"].items() if name != "seconds")
    assert all(row["whole"] > 0 for name, row in figures["atari"].items() if name != "seconds")
    assert all(row["steps"] > 0 for name, row in figures["training"].items() if name != "seconds")
    page = (tmp_path / "page.md").read_text()
    assert [line for line in page.splitlines() if line.startswith("## ")] == [f"## {step}" for step in steps]


def test_a_step_that_fails_says_why_and_the_next_begins(tmp_path, monkeypatch, capsys):
    """Also the exit status says that one failed; what the time does not allow is named."""

    def fails(_at):
        raise RuntimeError("out of memory")

    monkeypatch.setitem(gpu.STEPS, "exact", fails)
    flags = ["--device", "cpu", "--small", "--out", str(tmp_path)]
    assert gpu.main([*flags, "--steps", "exact", "machine"]) == 1
    assert "RuntimeError: out of memory" in capsys.readouterr().out
    assert gpu.main([*flags, "--steps", "machine", "--limit", "-1"]) == 0
    assert "the time was up" in capsys.readouterr().out
