"""Any text on any terminal and in any file, and nothing written or read but the run directory's own files."""

import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import gm_lab
from gm_lab.analysis import claims, figures, palette
from gm_lab.analysis.report import load, rendered
from gm_lab.analysis.tables import read_results
from gm_lab.report_command import main as report
from gm_lab.run import LiveRows, output, provenance
from gm_lab.run.errors import BadInput
from gm_lab.run.settings import parse
from gm_lab.run.store import RunDirectory, write_atomically
from gm_lab.track.sender import sendable

anything = st.text(st.characters(), max_size=20)  # lone surrogates, too
words = st.text(st.characters(exclude_characters="\0"), min_size=1, max_size=20)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("output")


@pytest.fixture(scope="module")
def finished(toy, tmp_path_factory):
    path = tmp_path_factory.mktemp("finished") / "run"
    flags = ["--run-dir", str(path), "--workers", "1", "--mdps", "2", "--wandb", "disabled"]
    assert gm_lab.main(toy.EXPERIMENT, flags) == 0
    return path


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "latin-1"])
@settings(deadline=None, derandomize=True)
@given(text=anything)
def test_any_text_is_printed_on_any_terminal(encoding, text):
    with pytest.MonkeyPatch.context() as patch:
        streams = [io.TextIOWrapper(io.BytesIO(), encoding=encoding) for _ in range(2)]
        patch.setattr(sys, "stdout", streams[0])
        patch.setattr(sys, "stderr", streams[1])
        output.open_streams()
        print(text)
        output.say(text)
        for stream in streams:
            stream.flush()
        said = streams[1].buffer.getvalue().decode(encoding)
    assert said.count("\n") == 1
    assert said[:-1].isprintable()


@settings(deadline=None, derandomize=True)
@given(text=anything)
def test_what_is_encoded_is_text_and_json_has_it_as_it_was(text):
    assert json.loads(output.encoded(json.dumps(text, ensure_ascii=False)).decode()) == text
    assert json.loads(json.dumps(sendable({"name": [text]})).encode().decode()) == {"name": [sendable(text)]}
    sendable(text).encode()


@settings(deadline=None, derandomize=True)
@given(st.lists(words, min_size=1, max_size=8))
def test_a_shell_reads_the_words_that_were_quoted(texts):
    raw = [text.encode("utf-8", "surrogatepass") for text in texts]
    line = " ".join(output.quoted(os.fsdecode(word)) for word in raw)
    assert line.isprintable()
    command = ["bash", "-c", f'printf "%s\\0" {line}']
    said = subprocess.run(command, check=True, capture_output=True, env={"LC_ALL": "C"}).stdout
    assert said.split(b"\0")[:-1] == raw


@settings(deadline=None, derandomize=True, max_examples=40)
@given(words)
@example("\ud800")
@example("r\udcff\n")
def test_any_text_is_written_and_read_back(folder, text):
    for file in folder.iterdir():
        file.unlink()
    provenance.record(folder, event="begun", command=text, versions={}, machine={text: text}, launcher="local")
    assert provenance.sessions(folder)[0]["command"] == text
    store = RunDirectory(folder, ("name", "x"), ("name",))
    store.log(text)
    write_atomically(
        folder / "claims.json", output.encoded(claims.as_json([claims.Verdict(text, text, "undecided", text)]))
    )
    assert json.loads((folder / "claims.json").read_bytes())[0]["claim"] == text
    (folder / "config.yaml").write_text("app: toy\nrun_id: a\nsettings: {}\n")
    write_atomically(folder / "report.html", output.encoded(rendered([load(folder)], text)))
    palette.style_of(text)


@settings(deadline=None, derandomize=True)
@given(
    st.dictionaries(
        st.sampled_from(["a", "b"]),
        anything.filter(lambda text: not set(text) & set("\r\n\v\f\x1c\x1d\x1e\x85\u2028\u2029")),
        min_size=1,
    )
)
def test_live_rows_hold_any_text(tmp_path_factory, texts):
    path = tmp_path_factory.mktemp("live")
    rows = LiveRows(path, figures.Style("", "", ""), step="step")
    rows.append({"step": 1, **texts})
    assert rows.path.read_bytes().decode().count("\n") >= 2


STREAMS = """
import os, sys
for number in map(int, sys.argv[1].split()): os.close(number)
sys.stdin = sys.stdout = sys.stderr = None
from gm_lab.run import output
output.open_streams()
assert os.open(os.devnull, os.O_RDONLY) > 2
print("said"), output.say("said")
"""


@pytest.mark.parametrize("closed", ["0 1 2", "2"])
def test_closed_streams_are_opened_on_nothing(closed):
    subprocess.run([sys.executable, "-c", STREAMS, closed], check=True)


def test_a_stderr_that_takes_nothing_ends_no_run(toy, tmp_path, monkeypatch):
    with Path("/dev/full").open("w") as full:
        monkeypatch.setattr(sys, "stderr", full)
        flags = ["--run-dir", str(tmp_path / "run"), "--workers", "1", "--mdps", "1", "--wandb", "disabled"]
        assert gm_lab.main(toy.EXPERIMENT, flags) == 0
        monkeypatch.undo()
        with pytest.raises(OSError, match="No space"):
            full.close()


def test_home_is_spelled_out(toy, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert parse(toy.Settings, "toy", ["--run-dir=~/x"]).run_dir == tmp_path / "x"
    assert parse(toy.Settings, "toy", ["--run-dir=~nobody-of-this-name/x"]).run_dir == Path("~nobody-of-this-name/x")


def test_a_module_that_changes_the_folder_moves_nothing(toy, monkeypatch, tmp_path):
    def figures(settings, frame):
        os.chdir("/")
        return toy.figures(settings, frame)

    def run_cell(cell, context):
        os.chdir("/")
        return toy.run_cell(cell, context)

    monkeypatch.chdir(tmp_path)
    experiment = gm_lab.Experiment(**(vars(toy.EXPERIMENT) | {"run_cell": run_cell, "figures": figures}))
    assert gm_lab.main(experiment, ["--run-dir", "run", "--workers", "1", "--mdps", "1", "--wandb", "disabled"]) == 0
    assert {"results.csv", "figures", "claims.json"} <= {path.name for path in (tmp_path / "run").iterdir()}
    assert provenance.sessions(tmp_path / "run")[0]["folder"] == str(tmp_path)


LINKS = [".lock", "log.txt", "sessions.jsonl", "cells/0123456789abcdef.claim", "live/a.csv", "figures/x.svg", "figures",
    "cells", "wandb", "wandb/sent.json", "results.csv", "config.yaml", ".results.csv.1.tmp"]  # fmt: skip


@pytest.mark.parametrize("name", LINKS)
def test_links_that_lead_out_are_refused_and_what_they_name_is_left_alone(toy, finished, tmp_path, capfd, name):
    run, victim = tmp_path / "run", tmp_path / "victim"
    shutil.copytree(finished, run)
    place = run / name
    place.parent.mkdir(exist_ok=True)
    if name in ("figures", "cells", "wandb"):
        shutil.rmtree(place, ignore_errors=True)
        victim.mkdir()
        (victim / ".a.tmp").write_text("precious")
    else:
        place.unlink(missing_ok=True)
        victim.write_text("precious")
    place.symlink_to(victim)
    before = sorted(path.name for path in run.rglob("*"))
    flags = ["--run-dir", str(run), "--workers", "1", "--mdps", "2", "--wandb", "disabled"]
    assert gm_lab.main(toy.EXPERIMENT, flags) == 2
    assert report([str(run)]) == 2
    err = capfd.readouterr().err.splitlines()
    assert [line.partition(": ")[2] for line in err] == [
        f"expected a run directory with files of its own, got {place}, a link to {victim}"
    ] * 2
    assert sorted(path.name for path in run.rglob("*")) == before
    assert ((victim / ".a.tmp") if victim.is_dir() else victim).read_text() == "precious"


parts = st.sampled_from(["..", ".", "a", "b", "loop", "in", "/", "/etc", "no"])


@settings(deadline=None, derandomize=True)
@given(st.lists(parts, min_size=1, max_size=5))
def test_links_are_refused_exactly_if_they_lead_out(tmp_path_factory, target):
    run = tmp_path_factory.mktemp("links") / "run"
    (run / "a" / "b").mkdir(parents=True)
    link = run / "a" / "in"
    link.symlink_to(Path(*target))
    try:
        inside = link.resolve(strict=False).is_relative_to(run.resolve())
    except RuntimeError:
        inside = False
    try:
        output.refuse_links_out(run)
        refused = False
    except BadInput:
        refused = True
    assert refused != inside


def test_links_of_the_run_directory_itself_and_of_wandb_are_no_reason(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "run")
    logs = tmp_path / "run" / "wandb" / "offline-run-1" / "logs"
    logs.mkdir(parents=True)
    (logs / "debug-core.log").symlink_to(tmp_path / "cache" / "core.log")
    (tmp_path / "run" / "wandb" / "latest-run").symlink_to("offline-run-1")
    (tmp_path / "latest").symlink_to("run")
    output.refuse_links_out(tmp_path / "latest")


@pytest.mark.parametrize("kind", ["fifo", "link", "folder", "device"])
def test_a_file_is_written_over_nothing_but_a_file(tmp_path, finished, capfd, kind):
    out = tmp_path / "out"
    if kind == "fifo":
        os.mkfifo(out)
    elif kind == "link":
        out.symlink_to(tmp_path / "elsewhere")
    elif kind == "folder":
        out.mkdir()
    else:
        out = Path("/dev/full")
    before = out.lstat()
    assert report([str(finished), "--out", str(out)]) == 2
    assert capfd.readouterr().err.startswith(f"report: cannot write {out}: ")
    assert (out.lstat().st_mode, out.lstat().st_ino) == (before.st_mode, before.st_ino)
    assert [path.name for path in tmp_path.iterdir()] == ["out"] * (kind != "device")
    if kind != "folder":
        with pytest.raises(OSError, match="it is"):
            read_results(out)


@pytest.mark.parametrize("name", ["results.csv", "config.yaml"])
def test_a_page_is_written_over_nothing_of_a_run(finished, capfd, name):
    out = finished / name
    before = out.read_bytes()
    assert report([str(finished), "--out", str(out)]) == 2
    assert capfd.readouterr().err.startswith(f"report: --out: expected a new file or a page to write over, got {out}")
    assert out.read_bytes() == before
    page = [str(finished), "--out", str(finished / "page.html")]
    assert (report(page), report(page)) == (0, 0)


def test_names_that_a_legend_would_hide_or_set_as_maths(toy, finished, tmp_path):
    frame = read_results(finished / "results.csv")
    names = ["_mine:f", "a$b$:f", "one $"]
    frame["estimator"] = frame["estimator"].map(dict(zip(["ad", "lvc", "mine"], names, strict=True)))
    figure = figures.panels(["$x$"])
    figures.lines(figure.axes[0], frame, x="size", y="accuracy", by="estimator", over="mdp")
    figures.shared_legend(figure)
    figures.save(figure, tmp_path / "x")
    (legend,) = figure.legends
    assert [text.get_text().replace("\\$", "$").strip() for text in legend.get_texts()] == names
