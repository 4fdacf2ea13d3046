"""The curves of an experiment as keys of its W&B run, and the panels of a Report that draw them, without a network."""

import dataclasses
import json
import math

import pandas as pd
import pytest

import gm_lab
from gm_lab.analysis import styles
from gm_lab.analysis.report import load
from gm_lab.track import wandb_report
from gm_lab.track.curves import Curves, curve_of, curves_of, history, keyed, logarithmic, panels_of
from gm_lab.track.resolved import resolved_settings

KIND = Curves(by=("figure", "estimator", "permutation", "inner_lr"), x="size", y=("accuracy", "bias"), over="mdp")


def results(rates=(10.0,), sizes=(2, 8, 256), mdps=3):
    """A table as the tabular apps have it, whose means are easy to say."""
    return pd.DataFrame(
        [
            {
                "figure": "fig4", "estimator": estimator, "permutation": permutation, "inner_lr": rate, "size": size,
                "mdp": mdp, "accuracy": base + mdp / 10, "bias": math.nan if size == 2 else rate / size,
            }
            for base, estimator in ((0.1, "ad"), (0.5, "lvc"))
            for permutation in ("SSE", "SEE")
            for rate in rates
            for size in sizes
            for mdp in range(mdps)
        ]
    )  # fmt: skip


def test_keys_are_texts_and_the_numbers_that_tell_curves_apart():
    assert list(keyed(curves_of([KIND], results()))) == ["fig4/ad/SSE", "fig4/ad/SEE", "fig4/lvc/SSE", "fig4/lvc/SEE"]
    assert list(keyed(curves_of([KIND], results(rates=(1.0, 0.5)))))[:2] == [
        "fig4/ad/SSE/inner_lr=1",
        "fig4/ad/SSE/inner_lr=0.5",
    ]


def test_a_slash_in_a_name_makes_no_part_of_its_own():
    frame = results().replace({"estimator": {"ad": "a/b"}})
    assert "fig4/a|b/SSE" in keyed(curves_of([KIND], frame))


def test_two_curves_have_two_keys():
    for rates in ((1.0,), (1.0, 2.0)):
        curves = list(curves_of([KIND], results(rates=rates)))
        assert len(keyed(curves)) == len(curves)


def test_a_row_of_history_has_all_that_curves_have_at_one_x():
    rows = list(history(keyed(curves_of([KIND], results()))))
    assert [row["size"] for row in rows] == [2, 8, 256]
    # Student's interval of 0.5, 0.6, 0.7: t = 4.3027 for two degrees of freedom, s = 0.1
    half = 4.30265 * 0.1 / math.sqrt(3)
    assert rows[0]["fig4/lvc/SSE/accuracy"] == pytest.approx(0.6)
    assert rows[0]["fig4/lvc/SSE/accuracy_low"] == pytest.approx(0.6 - half, abs=1e-5)
    assert rows[0]["fig4/lvc/SSE/accuracy_high"] == pytest.approx(0.6 + half, abs=1e-5)
    assert "fig4/lvc/SSE/bias" not in rows[0]
    assert rows[1]["fig4/lvc/SSE/bias"] == pytest.approx(10 / 8)


def test_two_axes_do_not_share_rows():
    other = dataclasses.replace(KIND, by=("figure", "estimator", "permutation", "size"), x="inner_lr")
    frame = results(rates=(1.0, 2.0))
    rows = list(history(keyed(curves_of([KIND], frame)) | keyed(curves_of([other], frame))))
    assert [sorted({"size", "inner_lr"} & row.keys()) for row in rows] == [["size"]] * 3 + [["inner_lr"]] * 2


def test_a_mean_over_one_unit_has_no_band():
    (row, *_) = history(keyed(curves_of([KIND], results(mdps=1))))
    assert not [key for key in row if key.endswith(("_low", "_high"))]


def test_long_curves_are_thinned_to_the_last_point():
    rows = list(history(keyed(curves_of([KIND], results(sizes=range(3, 503))))))
    assert len(rows) == 100
    assert rows[-1]["size"] == 502


def test_units_that_are_trained_alone_are_averaged_and_have_curves_of_their_own():
    kind = dataclasses.replace(KIND, over=None, alone="mdp")
    assert list(keyed(curves_of([kind], results()))) == list(keyed(curves_of([KIND], results())))
    each = list(curves_of([kind.of_each()], results()))
    assert len(each) == 4 * 3
    assert each[0].place == {"figure": "fig4", "estimator": "ad", "permutation": "SSE", "inner_lr": 10.0, "mdp": 0}
    row = results().iloc[0].to_dict()
    live = curve_of([kind], row)
    assert (live.place, live.id) == (each[0].place, each[0].id)
    assert curve_of([KIND], row) is None


def test_curves_of_runs_from_before_are_read():
    known = dataclasses.asdict(KIND)
    del known["alone"]
    assert Curves.of(json.loads(json.dumps(known))) == KIND


def test_an_axis_is_logarithmic_where_values_span_factors():
    assert logarithmic([2, 4, 8, 256])
    assert not logarithmic([1, 2, 3, 4, 5, 6])
    assert not logarithmic([0, 10, 1000])
    assert not logarithmic([-1e-3, 1.0])
    assert not logarithmic([])


def test_the_lines_of_a_panel_are_estimators():
    panels = list(panels_of(keyed(curves_of([KIND], results()))))
    assert [(figure, column, list(lines)) for figure, column, lines in panels] == [
        ("fig4", column, [f"fig4/{name}/{permutation}" for name in ("ad", "lvc")])
        for column in ("accuracy", "bias")
        for permutation in ("SSE", "SEE")
    ]


def test_a_panel_draws_bands_in_the_colour_of_their_estimator_on_the_axes_that_suit_them():
    _, panel = next(wandb_report.panels("abcd", keyed(curves_of([KIND], results()))))
    spec = panel._to_model().model_dump(by_alias=True)["config"]
    assert (spec["xAxis"], spec["xLogScale"], spec["yLogScale"]) == ("size", True, False)
    assert spec["chartTitle"] == "accuracy SSE"
    names = [f"fig4/{name}/SSE/accuracy{end}" for name in ("ad", "lvc") for end in ("", "_low", "_high")]
    assert sorted(spec["metrics"]) == sorted(names)
    assert spec["metrics"][:2] == ["fig4/ad/SSE/accuracy", "fig4/lvc/SSE/accuracy"]
    looks = styles(["ad", "lvc"])
    for name in names:
        series, band = f"abcd:{name}", name.endswith(("_low", "_high"))
        assert looks[name.split("/")[1]].colour in json.dumps(spec["overrideColors"][series])
        assert spec["overrideMarks"][series] == ("dotted" if band else "solid")
        assert spec["overrideLineWidths"][series] == (0.5 if band else 2.0)


def test_the_panels_of_one_measure_have_axes_of_one_kind():
    """Biases span a factor of 32; where one panel has a negative one, no panel is in factors."""
    frame = results()
    log_y = [panel.log_y for _, panel in wandb_report.panels("abcd", keyed(curves_of([KIND], frame)))]
    assert log_y == [False, False, True, True]
    frame.loc[(frame["permutation"] == "SEE") & (frame["size"] == 8), "bias"] = -1.0
    log_y = [panel.log_y for _, panel in wandb_report.panels("abcd", keyed(curves_of([KIND], frame)))]
    assert log_y == [False] * 4


@pytest.fixture
def account(stand_in, monkeypatch, tmp_path):
    """An account on the loopback interface: a set of runs is looked up when it is sent."""
    import wandb

    with stand_in() as server:
        for name, value in (("BASE_URL", server.url), ("API_KEY", "a" * 40)):
            monkeypatch.setenv(f"WANDB_{name}", value)
        monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
        wandb.teardown()  # it remembers the environment of its first use
        yield server
    wandb.teardown()


@pytest.fixture
def finished(toy, tmp_path, capfd, account):
    assert gm_lab.main(toy.EXPERIMENT, ["--run-dir", str(tmp_path / "run"), "--wandb", "disabled"]) == 0
    return tmp_path / "run"


def grids(run):
    """The panel grids of a run's part of the Report, as they are sent."""
    found = [block for block in wandb_report.blocks([run], "me") if type(block).__name__ == "PanelGrid"]
    return [json.loads(block._to_model().model_dump_json(by_alias=True))["metadata"] for block in found]


def panels_in(grid):
    return [panel["config"] for panel in grid["panelBankSectionConfig"]["panels"]]


def test_every_panel_has_keys_that_were_logged(finished):
    run = load(finished)
    figures, curves = grids(run)
    assert [panel["mediaKeys"] for panel in panels_in(figures)] == [["figures/toy"]]
    kinds = [Curves.of(kind) for kind in run.begun["curves"]]
    logged = {key for row in history(keyed(curves_of(kinds, pd.read_csv(finished / "results.csv")))) for key in row}
    drawn = [key for panel in panels_in(curves) for key in panel["metrics"]]
    assert sorted([*drawn, "size"]) == sorted(logged)
    assert {panel["xAxis"] for panel in panels_in(curves)} == {"size"}


def test_panels_show_the_run_where_it_was_sent(finished):
    sent = {"event": "tracked", "project": "ours", "entity": "us", "group": "together"}
    with (finished / "sessions.jsonl").open("a") as file:
        file.write(json.dumps(sent) + "\n")
    (finished / "wandb").mkdir()
    run = load(finished)
    grown = {"run": f"{run.run_id}-0123abcd", "digest": "0123abcd", "step": 4, "done": True}
    (finished / "wandb" / "sent.json").write_text(json.dumps({"online": {"curves": grown}}))
    _, curves = grids(load(finished))
    (runset,) = curves["runSets"]
    assert runset["project"] == {"name": "ours", "entityName": "us"} | runset["project"]
    assert all(word in json.dumps(runset["filters"]) for word in ("together", "experiment", grown["run"]))
    assert all(name.startswith(f"{grown['run']}:") for name in panels_in(curves)[0]["overrideColors"])


def test_units_that_were_trained_alone_are_grouped(toy, tmp_path, account):
    trained = gm_lab.Curves(by=("estimator",), x="size", y=("accuracy",), alone="mdp")
    experiment = dataclasses.replace(toy.EXPERIMENT, curves=(trained,))
    assert gm_lab.main(experiment, ["--run-dir", str(tmp_path / "run"), "--wandb", "disabled"]) == 0
    _, _, each = grids(load(tmp_path / "run"))
    (panel,) = panels_in(each)
    assert (panel["xAxis"], panel["metrics"], panel["groupArea"]) == ("size", ["accuracy"], "minmax")
    (runset,) = each["runSets"]
    assert "curve" in json.dumps(runset["filters"])
    assert "estimator" in json.dumps(runset["grouping"])


def test_a_run_without_results_has_no_panels_of_curves(finished):
    (finished / "results.csv").unlink()
    assert len(grids(load(finished))) == 1


@dataclasses.dataclass(frozen=True)
class Grid:
    estimators: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Cell:
    mdps: tuple[int, ...]
    grids: tuple[tuple[str, Grid], ...]
    weights: list[float] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class Settings(gm_lab.RunSettings):
    estimators: tuple[str, ...] | None = None
    """Instead of the figure's."""


def test_no_setting_is_null_where_the_run_has_a_value_for_it():
    fig1, fig4 = ("fig1", Grid(("ad",))), ("fig4", Grid(("ad", "lvc")))
    cells = [Cell((0, 1), (fig1, fig4)), Cell((2,), (fig4,), [0.5])]
    resolved = resolved_settings(Settings(seed=7, workers=None), cells)
    assert (resolved["seed"], resolved["device"], resolved["estimators"]) == (7, "cpu", ["ad", "lvc"])
    assert resolved["workers"] >= 1
    assert "ray_address" not in resolved
    assert None not in resolved.values()
    grids = {"fig1": {"estimators": ["ad"]}, "fig4": {"estimators": ["ad", "lvc"]}}
    assert resolved["cells"]["grids"] == grids
    assert resolved["cells"]["mdps"] == [0, 1, 2]


def test_what_was_asked_for_is_kept():
    cells = [Cell((0,), (("fig4", Grid(("lvc",))),))]
    asked = Settings(workers=3, device="cuda:1", estimators=("lvc",))
    resolved = resolved_settings(asked, cells)
    assert (resolved["workers"], resolved["device"], resolved["estimators"]) == (1, "cuda:1", ["lvc"])
