"""apps/reproduce.py: the single apps' results, one page at the end, and nothing finished lost."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import gm_lab
from gm_experiments import lirpg, lola
from gm_experiments.mgrl.settings import PAPER_GAMES
from gm_experiments.reproduce import main, run
from gm_experiments.reproduce.display import Display
from gm_experiments.reproduce.settings import IPD, STAGES, TABULAR, Settings, Stage, arguments, stages

APP = Path(__file__).parents[1] / "apps" / "reproduce.py"

TINY = ("--mdps", "2", "--repeats", "2", "--seeds", "2", "--updates", "3", "--wandb", "disabled")
LIRPG = ("--sample-sizes", "16", "--inner-steps", "1", "2")
LOLA = ("--figure", "fig2a", "--evaluation-size", "8")


@pytest.fixture
def one_stage(monkeypatch):
    """Two small stages: they tell the rest."""
    monkeypatch.setitem(STAGES, "tabular", (Stage("lirpg", "gm_experiments.lirpg", LIRPG, 1, TABULAR),))
    monkeypatch.setitem(STAGES, "ipd", (Stage("lola", "gm_experiments.lola", LOLA, 1, IPD),))


def test_the_results_are_those_of_the_single_apps_and_a_second_call_computes_nothing(one_stage, tmp_path, capfd):
    flags = ["--budget", "tabular,ipd", "--run-dir", str(tmp_path / "all"), *TINY]
    assert main(flags) == 0
    out, err = capfd.readouterr()
    alone = {
        "lirpg": (lirpg.EXPERIMENT, (*LIRPG, *TINY[:4])),
        "lola": (lola.EXPERIMENT, (*LOLA, *TINY[4:8])),
    }
    for name, (experiment, small) in alone.items():
        path = tmp_path / name
        assert gm_lab.main(experiment, [*small, "--run-dir", str(path), "--workers", "1", "--wandb", "disabled"]) == 0
        assert (tmp_path / "all" / name / "results.csv").read_bytes() == (path / "results.csv").read_bytes()
    lines = out.splitlines()
    assert [line.split(":")[0] for line in lines] == ["lirpg", "lola", "report"]
    assert lines[1].endswith(f"of 14 claims supported, {tmp_path / 'all' / 'lola'}")
    page = (tmp_path / "all" / "report.html").read_text()
    assert all(name in page for name in ("lirpg_tabular", "lola_offpolicy", "LIRPG-1", "LOLA-6"))
    assert "reproduce 1/2 lirpg: 0%" in err
    assert "reproduce 2/2 lola: 100%" in err.splitlines()[-1]

    assert command_of(tmp_path / "all" / "lola").partition(" --")[0].endswith("gm_experiments/lola/__main__.py")

    cells = {path: path.stat().st_mtime_ns for path in tmp_path.glob("all/lirpg/cells/*.json")}
    assert cells
    assert main(["--budget", "tabular", *flags[2:]]) == 0
    assert {path: path.stat().st_mtime_ns for path in cells} == cells


def command_of(folder):
    """What the first session in a run directory says to type."""
    return json.loads((folder / "sessions.jsonl").read_text().splitlines()[0])["command"]


def test_ctrl_c_keeps_what_is_finished_and_leaves_no_process_behind(tmp_path):
    flags = ["--budget", "tabular", "--run-dir", str(tmp_path), "--mdps", "500", "--wandb", "disabled"]
    background = ["sh", "-c", "trap '' INT; exec \"$@\"", "sh"]  # SIGINT ignored, as behind &
    command = [*background, sys.executable, str(APP), *flags]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    end = time.monotonic() + 60
    while not list(tmp_path.glob("maml/cells/*.claim")):
        assert time.monotonic() < end
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.splitlines()[-1] == "reproduce: interrupted, every finished cell is kept; the same command goes on"
    assert "Traceback" not in err
    assert "interrupted, every finished cell is kept" in (tmp_path / "maml.txt").read_text()
    assert (tmp_path / "maml" / "results.csv").exists()
    assert "apps/maml_tabular.py --figure fig1 fig4 fig5 fig6 --mdps 500 " in command_of(tmp_path / "maml")
    assert processes(tmp_path) == []


def processes(folder):
    """Those that name a folder in their command line."""
    found = []
    for cmdline in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # it ended meanwhile
            if str(folder).encode() in cmdline.read_bytes():
                found.append(int(cmdline.parent.name))
    return found


def wait_until(condition):
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


TOY = Path(__file__).parents[1] / "packages" / "gm-lab" / "tests" / "toy.py"
DRIVER = """import sys
from gm_experiments.reproduce import main, settings
from gm_lab.run import interruption
settings.STAGES["ipd"] = (settings.Stage("toy", "toy", ("--workers", "2"), 1, hours=24.0),)
interruption.GRACE_SECONDS, interruption.HURRIED_GRACE_SECONDS = {graces}
sys.exit(main())
"""


HOURS = 3600.0
"""A grace that no busy machine takes."""


@pytest.fixture
def begin(tmp_path):
    """Starts reproduce with cells that do not end, and waits until two are being computed.

    A cell that is told to stop says so, and writes its checkpoint when `let_go` says.
    """
    started = []

    def start(grace=HOURS, hurried_grace=HOURS, **variables):
        (tmp_path / "driver.py").write_text(DRIVER.format(graces=(grace, hurried_grace)))
        # here, too, the workers are forked before any thread of ours starts
        app = TOY.read_text().replace('__name__ != "__main__" or ', "")
        pause = 'time.sleep(float(os.environ.get("TOY_CHECKPOINT", "0.5")))'
        assert pause in app
        told = """Path(trace, f"told {cell.mdp}").touch()
            while not Path(trace, "go on").exists():
                time.sleep(0.01)"""
        (tmp_path / "toy.py").write_text(app.replace(pause, told))
        clean = {name: value for name, value in os.environ.items() if not name.startswith("TOY_")}
        toy = {"TOY_SLEEP": "3600", "TOY_TRACE": str(tmp_path)}
        flags = ["--budget", "ipd", "--run-dir", str(tmp_path / "runs"), "--wandb", "disabled"]
        command = [sys.executable, str(tmp_path / "driver.py"), *flags]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=clean | toy | variables)
        started.append(process)
        wait_until(lambda: len(list(tmp_path.glob("begun *"))) == 2)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stderr.close()
    for pid in processes(tmp_path):
        os.kill(pid, signal.SIGKILL)


def told(folder):
    return len(list(folder.glob("told *")))


def let_go(folder):
    (folder / "go on").touch()


def checkpoints(folder):
    return len(list(folder.glob("checkpoint *")))


def said(process, text):
    """Reads what it says up to that."""
    return any(text in line for line in iter(process.stderr.readline, ""))


LAST = "reproduce: interrupted, every finished cell is kept; the same command goes on"
KEEPING = "toy: stopping, what is in flight is kept as checkpoints; Ctrl-C again stops without them"


def test_sigterm_reaches_the_app_as_such(begin, tmp_path):
    process = begin(HOURS, 0.0)
    process.send_signal(signal.SIGTERM)
    wait_until(lambda: told(tmp_path) == 2)
    assert process.poll() is None
    let_go(tmp_path)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 143
    assert checkpoints(tmp_path) == 2
    assert "finishing the cells in flight" not in err
    assert err.splitlines()[-1] == LAST
    assert (tmp_path / "runs" / "toy" / "results.csv").exists()
    assert processes(tmp_path) == []


def test_the_first_ctrl_c_waits_for_the_cells_and_says_so_the_second_keeps_checkpoints(begin, tmp_path):
    process = begin(0.0, HOURS)
    process.send_signal(signal.SIGINT)
    assert said(process, "toy: finishing the cells in flight; Ctrl-C again stops now\n")
    assert process.poll() is None
    assert told(tmp_path) == 0
    let_go(tmp_path)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert checkpoints(tmp_path) == 2
    assert err.splitlines()[-1] == LAST
    assert (tmp_path / "runs" / "toy" / "results.csv").exists()
    assert processes(tmp_path) == []


def test_the_first_ctrl_c_keeps_the_checkpoints_of_trainers(begin, tmp_path):
    process = begin(HOURS, 0.0, TOY_RESUMABLE="1")
    process.send_signal(signal.SIGINT)
    assert said(process, KEEPING)
    wait_until(lambda: told(tmp_path) == 2)
    assert process.poll() is None
    let_go(tmp_path)
    process.communicate(timeout=60)
    assert process.returncode == 130
    assert checkpoints(tmp_path) == 2


def test_an_app_that_does_not_listen_is_killed_when_its_time_is_up(begin, tmp_path):
    process = begin(0.5, HOURS, TOY_STUBBORN="1")
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 143
    assert err.splitlines()[-1] == LAST
    assert processes(tmp_path) == []


def test_ctrl_c_once_more_does_not_wait_for_checkpoints(begin, tmp_path):
    process = begin(HOURS, HOURS, TOY_STUBBORN="1", TOY_RESUMABLE="1")
    process.send_signal(signal.SIGINT)
    assert said(process, KEEPING)

    def ended():
        process.send_signal(signal.SIGINT)  # it may not have heard the last one before it was done with the first
        return process.poll() is not None

    wait_until(ended)
    assert process.returncode == 130
    wait_until(lambda: not processes(tmp_path))


def test_ctrl_c_leaves_an_app_whose_hours_are_over_the_time_for_its_checkpoints(begin, tmp_path):
    process = begin(HOURS, 0.0, TOY_RESUMABLE="1")
    process.send_signal(signal.SIGALRM)  # as its clock sends, when its hours are over
    wait_until(lambda: told(tmp_path) == 2)
    process.send_signal(signal.SIGINT)
    let_go(tmp_path)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert checkpoints(tmp_path) == 2
    assert err.splitlines()[-1] == LAST


def test_hours_that_are_over_are_no_failure(begin, tmp_path):
    process = begin(HOURS, 0.0, TOY_RESUMABLE="1")
    let_go(tmp_path)
    process.send_signal(signal.SIGALRM)
    process.communicate(timeout=60)
    assert process.returncode == 0
    assert checkpoints(tmp_path) == 2
    assert (tmp_path / "runs" / "report.html").exists()


def test_a_stage_has_the_seconds_of_its_hours(monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(gm_lab, "main", lambda _experiment, _flags, stop_after: asked.append(stop_after) or 0)
    for hours in (None, 1.5):
        stage = Stage("lirpg", "gm_experiments.lirpg", LIRPG, 1, TABULAR, hours=hours)
        assert run.in_this_process(stage, Settings(run_dir=tmp_path)) == 0
    assert asked == [None, 5400.0]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process that its parent has died")
def test_no_process_outlives_a_killed_driver(begin, tmp_path):
    process = begin()
    process.kill()
    process.communicate()
    wait_until(lambda: not processes(tmp_path))


def test_an_app_that_fails_does_not_keep_the_others_from_running(one_stage, tmp_path, capfd):
    (tmp_path / "lirpg").mkdir()
    (tmp_path / "lirpg" / "thesis.tex").touch()
    assert main(["--budget", "tabular,ipd", "--run-dir", str(tmp_path), *TINY]) == 1
    lines = capfd.readouterr().out.splitlines()
    assert lines[0].startswith("lirpg: failed: lirpg_tabular: --run-dir: expected a run directory or an empty one")
    assert (tmp_path / "lola" / "claims.json").exists()
    assert "lola_offpolicy" in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize("budget", ["everything", "tabular,", "ipd=3", "atari=0", "atari=long", ""])
def test_budgets_that_mean_nothing_get_one_line(budget, tmp_path, capfd):
    assert main(["--budget", budget, "--run-dir", str(tmp_path / "new")]) == 2
    part = {"tabular,": ""}.get(budget, budget)
    expected = "some of tabular, ipd, atari and atari=HOURS, with commas between"
    assert capfd.readouterr().err == f"reproduce: --budget: expected {expected}, got '{part}'\n"
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("flag", "value", "least"), [("seed", -1, 0), ("mdps", 0, 1), ("repeats", 1, 2), ("seeds", 0, 1), ("updates", 0, 1)]
)
def test_numbers_that_are_too_small_get_one_line(flag, value, least, tmp_path, capfd):
    assert main([f"--{flag}", str(value), "--run-dir", str(tmp_path / "new")]) == 2
    assert capfd.readouterr().err == f"reproduce: --{flag}: expected an integer of at least {least}, got {value}\n"
    assert not (tmp_path / "new").exists()


def test_budgets():
    names = {budget: [s.name for s in stages(Settings(budget))] for budget in ("tabular,ipd", "atari")}
    assert names == {"tabular,ipd": ["maml", "lirpg", "theory", "lola"], "atari": ["atari"]}
    (paper,) = stages(Settings("atari=1.5"))
    assert paper.hours == 1.5
    line = arguments(paper, Settings(device="cuda"))
    assert paper.drawn_by == "gm_experiments.mgrl.unfinished"
    assert line[:14] == ["--games", *PAPER_GAMES, "--seeds", "5", "--env-steps", "40_000_000", "--device"]


def test_what_uses_a_gpu_comes_last():
    """A process that has computed on a GPU can't be forked any more, and the others' workers are forked."""
    for device, order in {"cuda:0": ["lola", "atari"], "cpu": ["atari", "lola"]}.items():
        assert [stage.name for stage in stages(Settings("atari,ipd", device=device))] == order


def test_hours_that_are_over_stop_an_app_which_keeps_what_it_has(tmp_path):
    flags = ("--figure", "fig4", "--mdps", "2000")
    stage = Stage("maml", "gm_experiments.maml", flags, 1.0, hours=12 / 3600, drawn_by="gm_experiments.mgrl.unfinished")
    settings = Settings(run_dir=tmp_path, wandb="disabled")
    assert run.run(stage, settings, Display("reproduce", [stage]), 0) == 0
    assert not (tmp_path / "maml" / "claims.json").exists()
    said = (tmp_path / "maml.txt").read_text()
    assert "maml_tabular: its time is over, every finished cell is kept" in said
    assert "expected a run directory of mgrl_atari" in said  # so it was drawn, if by the wrong program
    assert (tmp_path / "maml" / "results.csv").exists()


def test_a_misspelt_budget_is_asked_about(tmp_path, capfd):
    assert main(["--budget", "tabluar,ipd", "--run-dir", str(tmp_path / "new")]) == 2
    assert capfd.readouterr().err.endswith("got 'tabluar' (did you mean tabular?)\n")
