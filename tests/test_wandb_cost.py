"""benchmarks/wandb_cost.py: what its exit status says of what it measured."""

import pytest
import wandb_cost

GOOD = dict.fromkeys(wandb_cost.MODES, (0.0, 0.017))
"""What each mode adds to computing time, and what it takes of a core."""


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        ({}, ""),
        ({"slow": (0.021, 0.017)}, ""),  # the rounds scatter too much to show that
        ({"slow": (0.05, 0.017)}, "expected at most +2% of computing time, got slow +5.0% [+3.2%, +6.8%]"),
        (
            {"online": (0.0, 0.022), "refusing": (0.0, 0.5)},
            "expected less than 2% of a core taken, got refusing +50.0% [+50.0%, +50.0%], "
            "online +2.2% [+2.2%, +2.2%]; more rounds?",
        ),
    ],
)
def test_the_exit_status_says_what_is_shown(monkeypatch, capsys, changed, complaint):
    costs = GOOD | changed | {wandb_cost.BASE: (0.0, 0.0)}

    def seconds(mode, path):
        computing, taken = costs[mode]
        noise = 0.01 * (-1) ** int(path.name.split()[-1]) if mode != wandb_cost.BASE else 0.0  # by round
        return 10 * (1 + computing + noise), 1.0, 1 + taken

    monkeypatch.setattr(wandb_cost, "seconds", seconds)
    assert wandb_cost.main(["4"]) == int(bool(complaint))
    printed = capsys.readouterr()
    assert len(printed.out.splitlines()) == len(wandb_cost.MODES)
    assert printed.err == (f"wandb_cost: {complaint}\n" if complaint else "")


def test_one_round_shows_nothing(monkeypatch, capsys):
    monkeypatch.setattr(wandb_cost, "seconds", lambda _mode, _path: (10.0, 1.0, 1.0))
    assert wandb_cost.main(["1"]) == 1
    assert "more rounds?" in capsys.readouterr().err


def test_modes_can_be_chosen(monkeypatch, capsys):
    monkeypatch.setattr(wandb_cost, "seconds", lambda _mode, _path: (10.0, 1.0, 1.0))
    assert wandb_cost.main(["2", "slow"]) == 0
    assert [line.partition(":")[0] for line in capsys.readouterr().out.splitlines()] == ["slow"]


@pytest.mark.parametrize("argv", [["2", "fast"], ["many"], ["-1"]])
def test_bad_arguments(capsys, argv):
    assert wandb_cost.main(argv) == 2
    assert capsys.readouterr().err.startswith("wandb_cost: expected ROUNDS and some of disabled again, ")


def test_only_the_base_and_the_control_run_without_wandb():
    assert [mode for mode in (wandb_cost.BASE, *wandb_cost.MODES) if mode.startswith("disabled")] == [
        wandb_cost.BASE,
        "disabled again",
    ]
