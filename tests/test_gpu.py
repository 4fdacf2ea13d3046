"""The GPU's benchmark in small on the CPU: what it will say there can be trusted only if every step of it runs here."""

import contextlib
import json
import subprocess
import time
from pathlib import Path

import gpu
import pytest
import torch
from on_gpu import agreement, exact, problems
from on_gpu.machine import CPU, Machine
from threads import one_thread  # noqa: F401

import gm_envs_ipd
import gm_exact

ROUNDED = [f"{name}, CPU, θ as TF32" for name in agreement.WINDOWS.values()]
SMALL = ["--device", "cpu", "--small", "--seconds", "0.001"]


def test_every_step_of_the_gpu_benchmark_runs_on_the_cpu(tmp_path, monkeypatch):
    """Where the device is the CPU, nothing differs from the CPU; each step has its heading on the page.

    What takes a process of its own, or a compiler, is stood in for.
    """

    def app(_name, *flags):
        run = Path(flags[flags.index("--run-dir") + 1])
        run.mkdir()
        (run / "results.csv").write_text("estimator,accuracy\nlvc,0.5\n")

    def ended(command, **_options):
        return subprocess.CompletedProcess(command, 0, stdout="...\n3 passed in 1.00s\n", stderr="")

    monkeypatch.setattr(exact, "app", app)
    monkeypatch.setattr(agreement.subprocess, "run", ended)
    monkeypatch.setattr(torch, "compile", lambda work, backend: work)
    for name, step in gpu.STEPS.items():  # however busy the machine is
        monkeypatch.setitem(gpu.STEPS, name, step._replace(seconds=3600.0))
    status = gpu.main([*SMALL, "--out", str(tmp_path), "--limit", "36000"])
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert list(figures) == list(gpu.STEPS)
    assert status == 0, [found["failed"] for found in figures.values() if "failed" in found]
    assert not any("left out" in found for found in figures.values())
    for found in figures.values():
        assert found.pop("seconds") >= 0
    assert figures["tests"] == {"gm-envs-ipd": "3 passed in 1.00s"}
    assert min(map(figures["agreement"].pop, ROUNDED)) > 0
    assert set(figures["agreement"].values()) == {0.0}
    assert len(figures["agreement"]) == 17
    assert figures["apps"]["MAML Figure 4, 2 MDPs"]["difference"] == 0
    assert all(row["factor"] > 0 for step in ("lola", "exact", "apps") for row in figures[step].values())
    assert all(rate > 0 for rate in figures["learner"].values())
    assert all(row["a second"] > 0 for row in figures["compiled"].values())
    assert all(row["whole"] > 0 for row in figures["atari"].values())
    assert all(row["steps"] > 0 for row in figures["training"].values())
    page = (tmp_path / "page.md").read_text()
    assert [line for line in page.splitlines() if line.startswith("## ")] == [f"## {step}" for step in gpu.STEPS]


def test_the_steps_take_eight_minutes_at_most():
    """All but the last, which has the rest, take 7 together."""
    *others, last = gpu.STEPS.values()
    assert sum(step.seconds for step in others) <= 420
    assert last.seconds == 480


def test_what_is_known_is_there_at_once(tmp_path, monkeypatch):
    found = {}

    def looked(_at):
        yield "first", 1.0
        found.update(json.loads((tmp_path / "figures.json").read_text())["exact"])

    monkeypatch.setitem(gpu.STEPS, "exact", gpu.Step(looked, 480.0))
    assert gpu.main([*SMALL, "--out", str(tmp_path), "--steps", "exact"]) == 0
    assert found == {"first": 1.0}


def test_a_step_whose_time_is_over_is_ended_and_the_next_begins(tmp_path, monkeypatch):
    """Even where it catches every `Exception`, as a compiler does; it would sleep for a minute."""
    came_to_its_end = []

    def endless(_at):
        with contextlib.suppress(Exception):
            time.sleep(60)
        came_to_its_end.append(True)
        yield "last", 1.0

    monkeypatch.setitem(gpu.STEPS, "exact", gpu.Step(endless, 0.1))
    assert gpu.main([*SMALL, "--out", str(tmp_path), "--steps", "exact", "machine"]) == 0
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert not came_to_its_end
    assert figures["exact"]["left out"] == "its 0 s are over"
    assert figures["machine"]["gpu"] == "none"


def test_a_step_that_fails_says_why_and_the_next_begins(tmp_path, monkeypatch, capsys):
    """Also the exit status says that one failed; what the time does not allow is named."""

    def fails(_at):
        yield "before", 2.0
        raise RuntimeError("out of memory")

    monkeypatch.setitem(gpu.STEPS, "exact", gpu.Step(fails, 10.0))
    flags = ["--device", "cpu", "--small", "--out", str(tmp_path)]
    assert gpu.main([*flags, "--steps", "exact", "machine"]) == 1
    said = capsys.readouterr().out
    assert "RuntimeError: out of memory" in said
    assert "| before | 2 |" in said
    assert gpu.main([*flags, "--steps", "machine", "--limit", "-1"]) == 0
    assert "the time was up" in capsys.readouterr().out


@pytest.mark.parametrize("device", ["nonsense", "cuda", "mps"])
def test_a_device_that_is_not_there_is_refused_in_a_line(device, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match="2"):
        gpu.main(["--device", device, "--out", str(tmp_path / "gpu")])
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.endswith(f"argument --device: expected cpu, or cuda where there is a GPU, got '{device}'")
    assert not (tmp_path / "gpu").exists()


def test_tests_that_fail_on_the_device_fail_the_step(monkeypatch):
    """Pytest's exit status counts, also where no test was for the device; it is asked for those of the device alone."""
    commands = []

    def ended(command, **_options):
        commands.append(command)
        return subprocess.CompletedProcess(command, 5, stdout="no tests ran", stderr="")

    monkeypatch.setattr(agreement.subprocess, "run", ended)
    with pytest.raises(RuntimeError, match="gm-envs-ipd: pytest ended with 5: no tests ran"):
        list(agreement.tests(Machine("cpu", 0.001, small=False)))
    assert commands[0][commands[0].index("-k") + 1] == "cpu"


def test_the_sampled_meta_gradient_of_lola_is_the_exact_one_in_the_mean():
    """Within four standard errors over 200 seeds of one policy; the one without the opponent's step is far outside."""
    policies = torch.randn(1, 2, 5, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    found = problems.lola_dice(
        200, CPU, trajectories=512, rounds=15, discount=0.5, inner_lr=1.0, policies=policies.expand(200, 2, 5)
    )
    payoffs = gm_envs_ipd.GAMES["ipd"].tensor()
    truth, naive = (
        gm_exact.lola_meta_gradient(payoffs, policies, discount=0.5, inner_lr=lr, inner_steps=1).gradient[0]
        for lr in (1.0, 1e-9)
    )
    mean, error = found.mean(1), found.std(1) / 200**0.5
    assert ((mean - truth).abs() < 4 * error).all()
    assert ((mean - naive).abs() > 8 * error).any()
