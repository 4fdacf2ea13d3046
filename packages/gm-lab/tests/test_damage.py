"""What a run directory may have become: nothing is wrong without a word, and the reason shown is the reason."""

import contextlib
import dataclasses
import json
import os
import shutil
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import gm_lab
from gm_lab.reporting import Report
from gm_lab.run import machine, provenance
from gm_lab.run.live import LiveRows, Tail
from gm_lab.run.quitting import place
from gm_lab.run.store import RunDirectory, compute_cell, kinds_of_machine, opened


@dataclass(frozen=True)
class Cell:
    number: int


CELLS = [Cell(number) for number in range(4)]
FEW = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Nothing here is about power cuts, or pictures."""
    monkeypatch.setattr(os, "fsync", lambda _number: None)
    nothing = SimpleNamespace(report=lambda: Report("", [], 0, 0))
    monkeypatch.setattr("gm_lab.app.reporter", lambda *_: contextlib.nullcontext(nothing))


def run_cell(cell, _context):
    return [{"number": cell.number, "value": float(cell.number + step)} for step in range(3)]


ROWS = {cell: run_cell(cell, None) for cell in CELLS}


@contextlib.contextmanager
def writing(path):
    """A run directory as an app opens it."""
    with opened(path, "toy", {"seed": 0}, ("number", "value"), ("number", "value"), dict) as (store, _):
        yield store


@pytest.fixture(scope="module")
def pristine(tmp_path_factory):
    """A run directory with all cells and its results.csv."""
    path = tmp_path_factory.mktemp("pristine") / "run"
    with writing(path) as store:
        for cell in CELLS:
            compute_cell(store, run_cell, cell, gm_lab.Context())
        assert not store.collect(CELLS).lacking
    return path


@pytest.fixture
def fresh(pristine, tmp_path):
    """Gives a copy of the whole run directory, another one with each call."""

    def copy():
        shutil.rmtree(tmp_path / "run", ignore_errors=True)
        return Path(shutil.copytree(pristine, tmp_path / "run"))

    return copy


def flip(store, cell, _other, where):
    path = store.cell_path(cell)
    content = bytearray(path.read_bytes())
    content[where % len(content)] ^= 1 << where % 7
    path.write_bytes(content)


def cut(store, cell, _other, where):
    path = store.cell_path(cell)
    content = path.read_bytes()
    path.write_bytes(content[: where % len(content)])


def delete(store, cell, _other, _where):
    store.cell_path(cell).unlink()


def copy_other(store, cell, other, _where):
    store.cell_path(cell).write_bytes(store.cell_path(other).read_bytes())


def swap(store, cell, other, _where):
    contents = [store.cell_path(one).read_bytes() for one in (other, cell)]
    for one, content in zip((cell, other), contents, strict=True):
        store.cell_path(one).write_bytes(content)


def rows_of_other(store, cell, other, _where):
    """Whose rows they are is changed by hand, and not the checksum."""
    record = dict(json.loads(store.cell_path(other).read_bytes()))
    store.cell_path(cell).write_text(json.dumps(record | {"cell": {"number": cell.number}}))


def older_version(store, cell, _other, _where):
    from hashlib import sha256

    rows = [{"number": cell.number, "value": 0.5}]
    record = {"cell": {"number": cell.number}, "rows": rows, "sha256": sha256(json.dumps(rows).encode()).hexdigest()}
    store.cell_path(cell).write_text(json.dumps(record))


def something_else(store, cell, _other, where):
    odd = [
        "",
        "[]",
        "null",
        "{}",
        "[" * 10**5,
        '{"computed_on": 1}',
        '{"computed_on": "", "cell": {}, "rows": 3}',
        "\0",
    ]
    store.cell_path(cell).write_text(odd[where % len(odd)])


DAMAGE = [flip, cut, delete, copy_other, swap, rows_of_other, older_version, something_else]
DAMAGES = st.lists(
    st.tuples(st.sampled_from(DAMAGE), st.sampled_from(CELLS), st.sampled_from(CELLS), st.integers(0, 10**6)),
    max_size=3,
)


def apply(damages, store):
    for damage, cell, other, where in damages:
        # the earlier ones left nothing to damage
        with contextlib.suppress(OSError, ValueError, TypeError, RecursionError, ZeroDivisionError):
            damage(store, cell, other, where)


@settings(FEW, max_examples=50)
@given(DAMAGES)
@example([(copy_other, CELLS[1], CELLS[0], 0)])
@example([(older_version, CELLS[1], CELLS[0], 0)])
@example([(something_else, CELLS[0], CELLS[0], 1), (rows_of_other, CELLS[0], CELLS[0], 0)])
def test_a_cell_has_its_own_rows_or_is_computed_again(fresh, pristine, damages):
    said = []
    with writing(fresh()) as store:
        apply(damages, store)
        found = store.found(CELLS)
        lacking = [cell for cell, _ in found.lacking]
        assert found.rows == [row for cell in CELLS if cell not in lacking for row in ROWS[cell]]
        collected = store.collect(CELLS)  # as if it happened while the run went on
        assert [cell for cell, _ in collected.lacking] == lacking
        assert store.lost(collected).startswith(f"{len(lacking)} of the finished cells in ")
        pending = store.unfinished(found, said.append)
        assert pending == lacking
        assert len(said) == any(not isinstance(error, FileNotFoundError) for _, error in found.lacking)
        for cell in pending:
            compute_cell(store, run_cell, cell, gm_lab.Context())
        assert not store.collect(CELLS).lacking
        assert (store.path / "results.csv").read_bytes() == (pristine / "results.csv").read_bytes()


@pytest.mark.parametrize("all_of_it", [False, True], ids=["a cell", "the run directory"])
def test_what_vanishes_while_a_run_goes_on_is_missed(toy, capfd, tmp_path, monkeypatch, all_of_it):
    path = tmp_path / "run"

    def run_cell(cell, context):
        rows = toy.run_cell(cell, context)
        if cell.estimator == "mine":
            shutil.rmtree(path) if all_of_it else min(path.glob("cells/*.json")).unlink()
        return rows

    flags = ["--run-dir", str(path), "--wandb", "disabled", "--workers", "1", "--mdps", "1"]
    first = gm_lab.main(dataclasses.replace(toy.EXPERIMENT, run_cell=run_cell), flags)
    said = capfd.readouterr().err.splitlines()[-1]
    if all_of_it:
        assert (first, said.split("/")[-1]) == (
            2,
            f"{said.split('/')[-1].split('.')[0]}.json: No such file or directory",
        )
        assert said.startswith(f"toy: cannot write {path / 'cells'}/")
    else:
        assert first == 1
        assert said.startswith(
            f"toy: 1 of the finished cells in {path / 'cells'} vanished or changed while the run went on"
        )
        assert said.endswith(" (gone); the same --run-dir computes them again")
    assert gm_lab.main(toy.EXPERIMENT, flags) == 0
    assert len((path / "results.csv").read_text().splitlines()) == 1 + 3 * 3


NODES = {
    "a folder": Path.mkdir, "a FIFO": os.mkfifo, "a link to itself": lambda path: path.symlink_to(path.name),
    "a device": lambda path: path.symlink_to("/dev/zero"),
}  # fmt: skip
TEXTS = st.text(max_size=30) | st.sampled_from(["", "]", "- 1", "? [a]\n: 1", "a: &a [1]\nb: *a", "[" * 10**4])
LINES = ["app: toy", "run_id: abcd1234", "settings: {seed: 0}", "versions: {}"]
CONFIGS = st.lists(st.sampled_from([*LINES, "run_id: [1]", "run_id: ../x", "versions: [1]", "settings: 3"]) | TEXTS)


@FEW
@given(st.sampled_from(["config.yaml", ".lock", "cells"]) | st.sampled_from(CELLS), st.sampled_from(sorted(NODES)))
def test_what_is_no_file_is_one_line_at_once(fresh, name, node):
    path = fresh()
    where = path / name if isinstance(name, str) else RunDirectory(path, (), ()).cell_path(name)
    shutil.rmtree(where) if where.is_dir() else where.unlink()
    if (name, node) != ("cells", "a folder"):
        NODES[node](where)
        with pytest.raises(gm_lab.BadInput) as refusal, writing(path) as store:
            store.unfinished(store.found(CELLS), pytest.fail)
        assert str(where) in str(refusal.value)
        assert "\n" not in str(refusal.value)


@FEW
@given(CONFIGS.map("\n".join))
@example("\n".join(LINES))
@example("\n".join([LINES[0], *LINES[2:]]))
@example("\n".join([*LINES[:2], "settings: {seed: 2001-99-99}", LINES[3]]))
def test_a_config_is_what_this_program_writes_or_refused(fresh, text):
    path = fresh()
    (path / "config.yaml").write_text(text, errors="replace")
    try:
        with writing(path):
            assert set(LINES) <= set(text.splitlines())
    except gm_lab.BadInput as error:
        reason = str(error)
        assert reason.startswith("--run-dir: ")
        assert "\n" not in reason


@pytest.mark.parametrize("node", sorted(NODES))
def test_what_has_no_bearing_on_results_stops_nothing(tmp_path, node):
    live = tmp_path / "live" / f"{gm_lab.cell_id(CELLS[0])}.csv"
    live.parent.mkdir()
    for path in (tmp_path / "log.txt", tmp_path / "sessions.jsonl", live):
        NODES[node](path)
    RunDirectory(tmp_path, (), ()).log("a line")
    provenance.record(tmp_path, event="done")
    assert provenance.sessions(tmp_path) == []
    LiveRows(tmp_path, CELLS[0], step="step").append({"step": 1})
    assert Tail(live).rows() == []


@pytest.mark.parametrize("text", ["a,b\n1,2\n", "step,a\nfirst,2\n", "step\n1,2\n", "step\n\xff\n", '"', "\n\n"])
def test_live_rows_of_something_else_do_not_fail_a_cell(tmp_path, text):
    live = tmp_path / "live" / f"{gm_lab.cell_id(CELLS[0])}.csv"
    live.parent.mkdir()
    live.write_text(text, encoding="latin-1")
    rows = LiveRows(tmp_path, CELLS[0], step="step")
    for step in (3, 4):
        rows.append({"step": step, "score": 0.5})
    assert Tail(live).rows()[-2:] == [{"step": 3, "score": 0.5}, {"step": 4, "score": 0.5}]


def signals(*numbers):
    def end():
        for number in numbers:
            signal.raise_signal(number)

    return end


def raises(error):
    def end():
        raise error

    return end


class TextlessError(Exception):
    def __str__(self):
        raise ValueError("no text")


ENDINGS = {
    "SIGTERM": (signals(signal.SIGTERM), 143, "interrupted, every finished cell is kept"),
    "SIGHUP": (signals(signal.SIGHUP), 129, "interrupted, every finished cell is kept"),
    "Ctrl-C": (signals(signal.SIGINT), 130, "interrupted, every finished cell is kept"),
    "Ctrl-C twice": (signals(signal.SIGINT, signal.SIGINT), 130, "interrupted, every finished cell is kept"),
    "bad input": (raises(gm_lab.BadInput("--estimators: no")), 2, "--estimators: no"),
    "error": (raises(ZeroDivisionError("no way")), 1, "failed: ZeroDivisionError: no way"),
    "sys.exit": (lambda: sys.exit(0), 1, "failed: SystemExit: 0"),
    "os._exit": (lambda: os._exit(0), 1, "failed: SystemExit: 0"),
    "KeyboardInterrupt": (raises(KeyboardInterrupt), 1, "failed: KeyboardInterrupt (traceback in "),
    "an error without text": (raises(TextlessError()), 1, "failed: TextlessError (traceback in "),
    "BaseException": (raises(BaseException("odd")), 1, "failed: BaseException: odd"),
}


@settings(FEW, max_examples=12)
@given(st.sampled_from(sorted(ENDINGS)), st.sampled_from(["threads", "local"]), st.sets(st.integers(1, 5), max_size=3))
@example("SIGTERM", "local", {5})
@example("Ctrl-C twice", "local", {5})
@example("SIGHUP", "local", {4, 5})
@example("bad input", "local", {5})
@example("KeyboardInterrupt", "local", set())
@example("os._exit", "local", set())
@example("an error without text", "local", set())
def test_the_reason_that_ends_a_run_is_the_one_shown(toy, capfd, tmp_path, ending, launcher, damaged):
    """Whatever waits in the run directory."""
    end, status, reason = ENDINGS[ending]
    path = tmp_path / "run"
    shutil.rmtree(path, ignore_errors=True)
    store = RunDirectory(path, toy.EXPERIMENT.columns, toy.EXPERIMENT.key)
    cells = toy.cells(toy.Settings(mdps=2))

    def run_cell(cell, context):
        for number in damaged:
            store.cell_path(cells[number]).write_text('{"rows": []}')
        end()
        return toy.run_cell(cell, context)

    one = ["--workers", "1"]  # so that the signal is that of the driver's own process
    flags = ["--run-dir", str(path), "--wandb", "disabled", "--mdps", "2", "--launcher", launcher, *one]
    assert gm_lab.main(dataclasses.replace(toy.EXPERIMENT, run_cell=run_cell), flags) == status
    assert reason in capfd.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("how", ["sys.exit(0)", "sys.exit()", "exit(0)", "os._exit(0)", "raise KeyboardInterrupt"])
def test_a_module_that_ends_the_program_is_named(toy, capfd, tmp_path, monkeypatch, how):
    (tmp_path / "quits.py").write_text(f"import os, sys\n{how}\n")
    monkeypatch.syspath_prepend(tmp_path)

    def cells(_settings):
        import quits  # noqa: F401

    assert gm_lab.main(dataclasses.replace(toy.EXPERIMENT, cells=cells), ["--run-dir", str(tmp_path / "run")]) == 2
    err = capfd.readouterr().err
    assert err.startswith("toy: expected modules that come to their end, got a")
    assert err.endswith(f" from {tmp_path / 'quits.py'}, line 2\n")
    assert os._exit.__module__ == "posix"


def test_a_module_that_exits_is_named_where_wandb_has_hooked_exits(monkeypatch):
    """A run that sends to W&B in this very process has its hook in the place of sys.exit."""
    from wandb.sdk.lib.exit_hooks import ExitHooks

    monkeypatch.setattr(sys, "exit", sys.exit)
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    ExitHooks().hook()
    with pytest.raises(SystemExit) as stop:
        sys.exit(0)
    assert place(stop.value).startswith(f"{__file__}, line ")


def test_help_still_ends_with_status_0(toy):
    with pytest.raises(SystemExit) as stop:
        gm_lab.main(toy.EXPERIMENT, ["--help"])
    assert stop.value.code == 0


def test_a_deleted_working_directory_is_one_line(toy, capfd, tmp_path, monkeypatch):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert gm_lab.main(toy.EXPERIMENT, []) == 2
    assert capfd.readouterr().err == "toy: expected a working directory that exists: No such file or directory\n"


def test_another_kind_of_machine_is_warned_of(main, tmp_path, monkeypatch):
    assert main()[0] == 0
    here = machine.kind_of_machine()
    assert kinds_of_machine(tmp_path / "run") == {here: 6}
    monkeypatch.setattr("gm_lab.run.store.kind_of_machine", lambda _device: "pdp11")
    monkeypatch.setattr("gm_lab.app.kind_of_machine", lambda _device: "pdp11")
    min((tmp_path / "run" / "cells").iterdir()).unlink()
    status, err = main()
    assert status == 0
    lines = err.splitlines()
    warning = "toy: warning: cells were computed on other kinds of machine: 5 on "
    assert lines[0].startswith(f"{warning}{here}; this one is pdp11. Results are the same bytes on one kind only")
    assert lines[-1].startswith(f"{warning}{here}, 1 on pdp11. Results")
    assert kinds_of_machine(tmp_path / "run") == {here: 5, "pdp11": 1}
    assert "pdp11" in main()[1]  # nothing is left to compute


def test_the_kind_of_machine_is_that_of_the_instructions_in_use(monkeypatch):
    from types import SimpleNamespace

    def cpu():
        return SimpleNamespace(get_cpu_capability=lambda: "DEFAULT")

    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(backends=SimpleNamespace(cpu=cpu())))
    assert machine.kind_of_machine().endswith(" DEFAULT")
