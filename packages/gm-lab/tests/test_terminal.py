"""What a run prints is whole at any width: its small table, the verdicts, and what to type next."""

import dataclasses
import io
import json
import re
import shlex
import subprocess

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as some
from rich.console import Console

import gm_lab
from gm_lab.analysis import Metric, Verdict, above, as_list, decided, summary_table

WORDS = some.text("aé—", min_size=1, max_size=9)
TEXTS = some.lists(WORDS, min_size=1, max_size=5).map(" ".join)
NUMBERS = some.floats(allow_nan=True, allow_infinity=True)
PLAIN = Metric("accuracy", 0.05, 0.0)


def shown(printed, width, terminal=False):
    """What a console of some width shows."""
    console = Console(width=width, file=io.StringIO(), force_terminal=terminal, no_color=True)
    console.print(printed)
    return re.sub("\x1b.*?m", "", console.file.getvalue())


def words_of(text):
    for line in "┃│━─┏┓┗┛┡┩└┘╇┳┴":
        text = text.replace(line, " ")
    return text.split()


@some.composite
def small_frames(draw):
    kinds = draw(
        some.lists(some.sampled_from([TEXTS, NUMBERS, some.integers(-(10**12), 10**12)]), min_size=1, max_size=9)
    )
    rows = draw(some.integers(0, 4))
    columns = [draw(some.lists(kind, min_size=rows, max_size=rows)) for kind in kinds]
    frame = pd.DataFrame(dict(enumerate(columns)))
    return frame.set_axis(draw(some.lists(TEXTS, min_size=len(kinds), max_size=len(kinds), unique=True)), axis=1)


@given(small_frames(), some.integers(15, 120))
def test_every_word_and_number_of_a_table_is_there_at_any_width(frame, width):
    text = shown(summary_table(frame), width)
    assert max(map(len, text.splitlines()), default=0) <= width
    assert "…" not in text
    rows = [str(word) for row in frame.itertuples(index=False, name=None) for cell in row for word in _words(cell)]
    wanted = rows if frame.empty else [*rows, *(word for head in frame.columns for word in head.split())]
    if width > 34:  # the longest word and number are 24 long, and a block's "name: value" has both
        assert {*wanted} <= {word.removesuffix(":") for word in words_of(text)}


def _words(cell):
    return cell.split() if isinstance(cell, str) else [f"{cell:.3g}" if isinstance(cell, float) else str(cell)]


NINE = pd.DataFrame({"accuracy at K = 1": ["ad", "lvc"]} | {f"column {i}": [0.123, -4.5e-6] for i in range(9)})


@pytest.mark.parametrize("terminal", [False, True])
def test_a_table_that_is_too_wide_becomes_several_under_the_same_first_column(terminal):
    lines = shown(summary_table(NINE), 80, terminal).splitlines()
    assert sum(line.startswith("┏") for line in lines) == 2
    assert sum("│ lvc" in line for line in lines) == 2
    one = shown(summary_table(NINE), 160, terminal)
    assert one.count("┏") == 1
    assert "accuracy at K = 1 ┃" in one


def test_rows_of_two_keys_are_set_below_each_other_if_that_takes_fewer_lines():
    places = [f"n 256, K 1, α 10, {updates} updates" for updates in (0, 10)]
    rows = [{"at": place, "which": f"{which} on other MDPs"} for place in places for which in ("best", "chosen")]
    frame = pd.DataFrame(rows).assign(**{f"number {i}": -0.00123 for i in range(6)})
    text = shown(summary_table(frame), 80)
    assert [line for line in text.splitlines() if line.startswith("at: ")] == [f"at: {place}" for place in places]


def test_where_no_table_fits_each_row_is_a_block():
    lines = shown(summary_table(NINE.iloc[:, :3]), 20).splitlines()
    assert [line.rstrip() for line in lines[:4]] == ["accuracy at K = 1:", "ad", "column 0: 0.123", "column 1: 0.123"]


def test_numbers_are_those_of_the_frame_and_text_is_no_markup():
    frame = pd.DataFrame({"count": [12345], "share": [0.123456], "name": ["[nan, nan] :smile:"]})
    assert words_of(shown(summary_table(frame), 80)) == [
        "count", "share", "name", "12345", "0.123", "[nan,", "nan]", ":smile:",
    ]  # fmt: skip


def test_claims_that_were_not_measured_are_counted_below_the_others():
    series = pd.Series([0.3, 0.31, 0.29, 0.3, 0.3, 0.3], index=pd.Index(range(6), name="mdp"))
    judged = decided("X-1", "a long claim " * 9, [above("a > b", series, 0 * series, PLAIN)])
    absent = decided("X-2", "two", [above("c > d", series[:0], series, PLAIN)])
    of_others = Verdict("X-3", "three", "not measured", "needs 5 seeds")
    text = shown(as_list([judged, absent, of_others], "of three", measured_by="--figure c would measure more"), 80)
    assert text.splitlines()[:2] == ["Claims of three", f"X-1  {judged.verdict}"]
    assert all(line.startswith("    ") and line == line.rstrip() for line in text.splitlines()[2:-2])
    said = "2 claims were not measured with these settings; --figure c would measure more; needs 5 seeds"
    assert " ".join(text.split()).endswith(said)
    assert not {"X-2", "X-3"} & {*text.split()}
    assert shown(as_list([absent]), 80) == "1 claim was not measured with these settings\n"


@pytest.mark.parametrize("width", [60, 80])
def test_ids_and_verdicts_stand_together_on_a_line(width):
    series = pd.Series([0.0, 1.0, 0.2], index=pd.Index(range(3), name="mdp"))
    verdicts = [decided(f"LIRPG-OWN-{i}", "w " * 99, [above("a", series, 0 * series, PLAIN)]) for i in range(12)]
    lines = shown(as_list(verdicts, of_paper=True), width).splitlines()
    wanted = [f"LIRPG-OWN-{i}  undecided at the paper's budget" for i in range(12)]
    assert [line for line in lines if line.startswith("LIRPG")] == wanted


@pytest.mark.parametrize("width", [60, 80])
def test_a_run_prints_nothing_that_is_cut(run, tmp_path, width):
    names = ("ad", "lvc", "an_estimator_with_quite_a_long_name_" * 2)
    status, out, err = run("--run-dir", tmp_path / "run", "--estimators", *names, COLUMNS=width)
    assert status == 0, err
    assert "…" not in out
    table, _, _ = out.partition("Claims")
    assert max(map(len, table.splitlines())) <= width


def test_what_was_found_is_said_in_words_before_the_files_and_kept(run, tmp_path):
    status, out, err = run("--run-dir", tmp_path / "run", COLUMNS=24)
    assert status == 0, err
    said = out[out.index("In words") : out.index("results: ")].splitlines()
    assert said == ["In words", "  - The larger the", "    better"]
    kept = json.loads((tmp_path / "run" / "figures" / "captions.json").read_text())
    assert kept == {"toy": {"finding": "The larger the better", "caption": "Bands are 95% intervals."}}


def test_a_conclusion_stands_beside_what_the_pictures_say(toy, tmp_path, capfd):
    said = ["The larger the better", "So take the largest"]
    experiment = dataclasses.replace(toy.EXPERIMENT, conclusion=lambda _settings, frame: said * len(frame))
    flags = ["--run-dir", str(tmp_path / "run"), "--mdps", "2", "--workers", "1", "--wandb", "disabled"]
    assert gm_lab.main(experiment, flags) == 0
    lines = capfd.readouterr().out.splitlines()
    at = lines.index("In words")
    assert lines[at + 1 : at + 3] == [f"  - {sentence}" for sentence in said]
    assert lines[at + 3].startswith("results: ")


def next_steps(out):
    """The commands that a run ends with, by what they are for."""
    lines = (line.partition(": ") for line in out.splitlines() if line.startswith(("as one page", "to decide")))
    return {what: shlex.split(command) for what, _, command in lines}


def test_a_run_says_what_to_type_next_and_that_does_it(run, tmp_path):
    path = tmp_path / "it's a run"
    _, out, _ = run("--run-dir", path, "--mdps", 10, "--workers", 1)
    steps = next_steps(out)
    assert list(steps) == ["as one page", "to decide 1 open claim"]
    assert steps["as one page"][-3:] == ["-m", "gm_lab.report_command", str(path)]
    subprocess.run(steps["as one page"], check=True, capture_output=True)
    assert (path / "report.html").exists()
    again = steps["to decide 1 open claim"][3:]
    assert steps["to decide 1 open claim"][:2] == ["uv", "run"]
    assert again[-1] == "--until-decided"
    status, out, err = run(*again)
    assert status == 0, err
    assert "1 of 1 claims decided" in err
    assert list(next_steps(out)) == ["as one page"]


def test_the_run_directory_is_named_where_it_was_not(toy, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    flags = ["--mdps", "2", "--workers", "1", "--wandb", "disabled"]
    assert gm_lab.main(toy.EXPERIMENT, flags) == 0
    (path,) = (tmp_path / "runs" / "toy").iterdir()
    steps = next_steps(capfd.readouterr().out)
    place = ["--run-dir", str(path.relative_to(tmp_path))]
    assert steps["to decide 1 open claim"][-len(flags) - 3 :] == [*flags, "--until-decided", *place]


def test_nothing_is_to_be_decided_where_there_are_no_more_units(toy, tmp_path, capfd):
    flags = ["--run-dir", str(tmp_path / "run"), "--mdps", "2", "--workers", "1", "--wandb", "disabled"]
    assert gm_lab.main(toy.EXPERIMENT, [*flags, "--most-mdps", "2"]) == 0
    assert list(next_steps(capfd.readouterr().out)) == ["as one page"]
    for others in ({"unit": "", "budget": ()}, {"claims": lambda settings, frame: []}):
        alone = dataclasses.replace(toy.EXPERIMENT, **others)
        assert gm_lab.main(alone, [*flags, "--most-mdps", "2"]) == 0
        assert list(next_steps(capfd.readouterr().out)) == ["as one page"]


def test_an_unknown_number_is_a_dash():
    frame = pd.DataFrame({"name": ["none"], "share": [float("nan")]})
    assert words_of(shown(summary_table(frame), 80)) == ["name", "share", "none", "–"]
