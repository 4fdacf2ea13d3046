"""The small table of every experiment is whole on a narrow terminal and through a pipe."""

import io
from importlib import import_module

import pytest
from rich.console import Console

from gm_lab.analysis import summary_table
from gm_lab.run import parse

TABULAR = "--mdps 2 --repeats 3 --states 4 --actions 2 --horizon 4"
LIVES = "--rules 1 --meta-updates 2 --lifetime 5 --tasks 4 --side 2 --held-out 2 --held-out-side 2 --tuning-tasks 1"
RULES = "--hidden 2 --horizon 3 --inner-lrs 1 --critic-lrs 1 --gae-lambdas 0.9 --lr-scales 1"
SMALL = [
    ("maml", f"{TABULAR} --figure fig4 --sample-sizes 3"),
    ("maml", f"{TABULAR} --figure theory --sample-sizes 3 6 --inner-steps 2 --inner-lrs 3"),
    ("lirpg", f"{TABULAR} --figure fig1 --sample-sizes 3"),
    ("lirpg", f"{TABULAR} --figure entropy --sample-sizes 3 --inner-steps 2"),
    ("explore", f"{TABULAR} --inner-lrs 3 --sample-sizes 3 6 --inner-steps 1 2"),
    ("frontier", f"{TABULAR} --sample-sizes 24 --inner-steps 2 --points 0 1"),
    ("frontier", f"{TABULAR} --figure training --sample-sizes 24 --updates 2"),
    ("frontier", f"{TABULAR} --figure budgets --sample-sizes 24 48 --points 0 1"),
    ("attribution", f"{TABULAR} --sample-sizes 3 6 --points 0 2 4 8 --estimators lvc"),
    ("lola", "--figure fig2d --updates 2 --horizon 4 --seeds 2 --evaluation-size 4"),
    ("lola", "--figure debias --updates 2 --horizon 4 --seeds 2 --evaluation-size 4"),
    ("attribution.lola", "--points 0 2 --horizon 4 --seeds 2 --sample-sizes 4 --repeats 2 --estimators lvc"),
    ("lpg", "--figure gradient --mdps 1 --repeats 2 --sample-sizes 4"),
    ("lpg", f"--figure learning {LIVES} {RULES}"),
    ("mgrl_chain", "--updates 2 --inner-steps 1 --trajectories 4 --seeds 2"),
    ("mgrl_tabular", f"{TABULAR} --figure sources --inner-steps 1 2 --points 0 2"),
    ("mgrl_tabular", f"{TABULAR} --figure schedules --windows 2 --sample-sizes 4"),
]


def words_of(printed, width):
    """What a console of some width shows, without the lines of its tables."""
    console = Console(width=width, file=io.StringIO())
    console.print(printed)
    text = console.file.getvalue()
    assert max(map(len, text.splitlines())) <= width
    return {word.strip(":") for word in text.translate(dict.fromkeys(map(ord, "┃│━─┏┓┗┛┡┩└┘╇┳┴┼"), " ")).split()}


@pytest.mark.parametrize(
    ("name", "line", "said"),
    [
        ("maml", f"{TABULAR} --figure fig1 --sample-sizes 3", "--figure fig4 fig5 fig6 would measure more"),
        ("maml", f"{TABULAR} --figure fig1 fig4 fig5 fig6 --sample-sizes 3 --inner-steps 1", ""),
        ("maml", f"{TABULAR} --figure fig5 --sample-sizes 3 --inner-steps 1", "--figure fig4 fig6 would measure more"),
        ("maml", f"{TABULAR} --figure fig4 fig5 fig6 --sample-sizes 3 --inner-steps 1", ""),
        ("lirpg", f"{TABULAR} --figure fig7 --sample-sizes 3", ""),
        ("lola", "--figure fig2a --updates 2 --horizon 4 --seeds 2 --evaluation-size 4",
         "--figure fig2b fig2c fig2d would measure more"),
        ("lola", "--figure fig8 --updates 2 --horizon 4 --seeds 2 --evaluation-size 4", ""),
        ("lpg", "--figure gradient --mdps 1 --repeats 2 --sample-sizes 4", "--figure learning would measure more"),
        ("mgrl_chain", "--updates 2 --inner-steps 1 --trajectories 4 --seeds 2 --critics outer",
         "--critics inner outer would measure more"),
        ("mgrl_tabular", f"{TABULAR} --figure schedules --windows 1 --sample-sizes 4",
         "--figure sources would measure more"),
    ],
)  # fmt: skip
def test_the_figures_that_would_measure_more_are_named(rows_of, name, line, said):
    experiment = import_module(f"gm_experiments.{name}").EXPERIMENT
    settings = parse(experiment.settings, experiment.name, line.split())
    verdicts = experiment.claims(settings, rows_of(experiment, *line.split()))
    needs = [need for verdict in verdicts if verdict.verdict == "not measured" for need in verdict.needs]
    assert needs
    assert experiment.measured_by(settings, frozenset(needs)) == said


@pytest.mark.parametrize(("name", "line"), SMALL, ids=[f"{name} {line.split()[-1]}" for name, line in SMALL])
def test_nothing_of_a_small_table_is_cut(rows_of, name, line):
    experiment = import_module(f"gm_experiments.{name}").EXPERIMENT
    settings = parse(experiment.settings, experiment.name, line.split())
    summary = experiment.summary(settings, rows_of(experiment, *line.split()))
    table = summary_table(summary)
    cells = [cell for row in (table.heads, *table.rows) for cell in row]
    wanted = {word.strip(":") for cell in cells for word in cell.split()}
    assert len(summary) > 0
    for width in (80, 60):
        assert wanted <= words_of(table, width)
