"""A diagnosis that is killed goes on from its file, and ends where it would have without that."""

import io
import os
import shutil
from pathlib import Path

import jaxtyping
import pytest
import torch

from gm_estimators import Sizes, Trajectories
from gm_estimators.diagnose import diagnose
from gm_estimators.diagnose.measured import Sampled
from gm_estimators.optimisers import adam, constant

LANES, EACH = 8, 768
"""Repeats of a round, and its environment steps."""
BUDGET = 3 * EACH


@pytest.fixture(autouse=True)
def unchecked(monkeypatch):
    """Checking shapes would take half of the time."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


@pytest.fixture
def quick(monkeypatch):
    """Rounds of any numbers, which their seed decides."""

    def numbers(plan, seed):
        drawn = torch.randn(4, LANES, 1, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        estimates = {config: drawn[2] * (i + 1) for i, config in enumerate(plan.configs)}
        variances = {config: drawn[3, :, 0].square() for config in plan.configs if config.composition}
        return Sampled(drawn[0] + 5, drawn[1] + 5, estimates, variances), EACH

    monkeypatch.setattr("gm_estimators.diagnose.diagnosis._round", numbers)


def draw(role, step, params, n, seed):
    return params + torch.randn(*params.shape[:-1], n, generator=torch.Generator().manual_seed(seed))


def paying(target):
    def see(action, params, gae_lambda):
        log_prob, reward = -0.5 * (action - params).square(), -0.5 * (action - target).square()
        value = torch.zeros(*action.shape, 2)
        return Trajectories(log_prob[..., None], reward[..., None], value, reward[..., None], torch.ones(2))

    return see


def diagnosed(keep=None, **changes):
    options = {
        "draw": draw, "see": paying(1.0), "params": torch.zeros(1), "sizes": Sizes(2, 2, 2, shared=True), "blocks": 8,
        "inner_lr": 0.3, "lanes": LANES, "budget": BUDGET, "surrogate": "lvc", "keep": keep,
    }  # fmt: skip
    return diagnose(**(options | changes))


def same(one, other):
    """Whether two reports have the same numbers to the last bit."""
    pairs = [(one.sampled.reference, other.sampled.reference), (one.sampled.coarser, other.sampled.coarser)]
    pairs += [(x, other.sampled.estimates[config]) for config, x in one.sampled.estimates.items()]
    pairs += [(x, other.sampled.variances[config]) for config, x in one.sampled.variances.items()]
    return all(torch.equal(*pair) for pair in pairs)


def stopped_after(rounds, error=KeyboardInterrupt):
    """A `draw` that is interrupted in the middle of a round."""
    seen = []

    def interrupted(role, step, params, n, seed):
        if len(seen) == rounds and role == "outer":
            raise error
        return draw(role, step, params, n, seed)

    return {"draw": interrupted, "progress": lambda *_: seen.append(0)}


def test_what_is_interrupted_goes_on_and_ends_where_it_would_have(tmp_path):
    file = tmp_path / "new" / "bias.pt"
    whole = diagnosed()
    assert (whole.rounds, whole.env_steps) == (3, BUDGET)
    for error in (KeyboardInterrupt, ZeroDivisionError):
        with pytest.raises(error):
            diagnosed(file, **stopped_after(1, error))
    assert torch.load(file, weights_only=True)["rounds"] == 2
    report = diagnosed(file)
    assert same(report, whole)
    assert str(report) == str(whole)
    assert len(whole.sampled.reference.unique()) == 3 * LANES
    assert [path.name for path in file.parent.iterdir()] == ["bias.pt"]


@pytest.mark.usefixtures("quick")
def test_a_kill_at_any_time_leaves_the_rounds_before(tmp_path, monkeypatch):
    """What lies on the disk when a round ends is what a kill would leave."""
    monkeypatch.setattr("gm_estimators.diagnose.keep.PART", 0)
    file, left = tmp_path / "bias.pt", tmp_path / "left.pt"

    def look(repeats, env_steps):
        if repeats == 2 * LANES:
            shutil.copy(file, left)

    whole = diagnosed(file, progress=look)
    assert torch.load(left, weights_only=True)["rounds"] == 1
    assert same(diagnosed(left), whole)


@pytest.mark.usefixtures("quick")
def test_a_kill_while_it_writes_leaves_the_file_before(file, monkeypatch):
    before = file.read_bytes()

    def killed(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", killed)
    with pytest.raises(KeyboardInterrupt):
        diagnosed(file)
    assert file.read_bytes() == before
    assert list(file.parent.iterdir()) == [file]


@pytest.mark.usefixtures("quick")
def test_what_is_complete_is_returned_at_once_and_more_goes_on(tmp_path):
    file, told = tmp_path / "bias.pt", []
    first = diagnosed(file)
    for budget in (BUDGET, 1):  # a small one for whatever there is
        assert same(diagnosed(file, budget=budget, progress=lambda *x: told.append(x)), first)
    assert told == []
    longer = diagnosed(file, budget=BUDGET + EACH)
    assert longer.rounds == first.rounds + 1
    assert same(longer, diagnosed(budget=BUDGET + EACH))
    again = first.more(budget=1)  # of what the file has by now
    assert again.rounds == longer.rounds + 1
    assert same(diagnosed(file, budget=1), again)
    file.unlink()
    assert first.more(budget=1).rounds == first.rounds + 1
    assert diagnosed(file, budget=1).rounds == first.rounds + 1


@pytest.mark.usefixtures("quick")
def test_seconds_count_what_was_before_the_kill(tmp_path, monkeypatch):
    clock = iter(range(10**6))
    monkeypatch.setattr("time.monotonic", lambda: float(next(clock)))
    file, budget = tmp_path / "bias.pt", {"budget": None, "seconds": 40}

    def killed(repeats, env_steps):
        if repeats == 3 * LANES:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        diagnosed(file, **budget, progress=killed)
    report, whole = diagnosed(file, **budget), diagnosed(tmp_path / "whole.pt", **budget)
    assert abs(report.rounds - whole.rounds) <= 1
    assert abs(report.done.seconds - whole.done.seconds) < 10
    assert diagnosed(file, **budget).rounds == report.rounds


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A file of one round."""
    path = tmp_path_factory.mktemp("made") / "bias.pt"
    diagnosed(path, budget=1)
    return path


@pytest.fixture
def file(made, tmp_path):
    return Path(shutil.copy(made, tmp_path))


def broken(content):
    """One bit of a number is another."""
    reference = torch.load(io.BytesIO(content), weights_only=True)["reference"]
    at = content.index(reference.numpy().tobytes()) + 5
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


class Code:
    def __reduce__(self):
        return print, ("code ran",)


def running():
    """A file that prints when it is unpickled."""
    torch.save({"format": Code()}, buffer := io.BytesIO())
    return buffer.getvalue()


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[:-100], lambda content: content[: len(content) // 2], lambda content: b"",
        broken, lambda content: b"nonsense",
        lambda content: running(),
    ],
    ids=["end lacks", "half", "empty", "a bit", "text", "code"],
)  # fmt: skip
def test_a_damaged_file_is_refused(file, damage, capsys):
    file.write_bytes(content := damage(file.read_bytes()))
    with pytest.raises(ValueError, match="keep: expected the file of this diagnosis, got one that is damaged") as seen:
        diagnosed(file, budget=1)
    assert "\n" not in str(seen.value)
    assert file.read_bytes() == content
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"params": torch.ones(1)}, r"got params of 1 numbers \(\w{8}\) in it and of 1 numbers \(\w{8}\) here"),
        ({"sizes": Sizes(2, 2, 4, shared=True)}, r"got sizes Sizes\(inner=2, .*, outer=2, .*outer=4"),
        ({"surrogate": ("ad", "lvc")}, "got surrogate lvc in it and ad, lvc here"),
        ({"inner_steps": 2}, "got inner_steps 1 in it and 2 here"),
        ({"inner_lr": 0.4}, r"got optimiser _Ascent\(inner_lr=0.3, .*inner_lr=0.4"),
        ({"gae_lambda": 0.5}, "got gae_lambda None in it and 0.5 here"),
        ({"seed": 1}, "got seed 0 in it and 1 here"),
        ({"lanes": 4}, "got lanes 8 in it and 4 here"),
        ({"blocks": 16}, "got blocks 8 in it and 16 here"),
        ({"estimand": "adapted"}, "got estimand exact in it and adapted here"),
        ({"ideals": {"rewards": {"see": paying(1.0)}}}, "got ideals None in it and rewards here"),
        ({"see": paying(1.1)}, "got one whose draw, see, surrogate or optimiser gave another meta-gradient"),
    ],
)  # fmt: skip
def test_the_file_of_another_loop_is_refused(file, changes, said):
    content = file.read_bytes()
    with pytest.raises(ValueError, match=said) as seen:
        diagnosed(file, **changes)
    assert "\n" not in str(seen.value)
    assert file.read_bytes() == content


@pytest.mark.usefixtures("quick")
def test_a_rate_that_no_description_shows_is_told_apart(tmp_path):
    file = tmp_path / "bias.pt"
    options = {"inner_lr": None, "budget": 1}
    once = diagnosed(file, optimiser=adam(constant(0.1)), **options)
    assert same(diagnosed(file, optimiser=adam(constant(0.1)), **options), once)
    with pytest.raises(ValueError, match="draw, see, surrogate or optimiser gave another meta-gradient"):
        diagnosed(file, optimiser=adam(constant(0.2)), **options)


def test_other_contents_of_the_same_form_are_refused(file):
    record = torch.load(file, weights_only=True)
    for changed, said in (
        (record | {"format": "gm-estimators diagnosis 0"}, "got another format"), (record["loop"], "another format"),
        ([1], "another format"), (record | {"loop": 3}, "got params None in it"),
        (record | {"proof": 3}, "gave another meta-gradient"), (record | {"rounds": 3}, "got other parts in it"),
        ({k: x for k, x in record.items() if k != "estimates"}, "other parts"),
        (record | {"estimates": record["estimates"][:-1]}, "other parts"), (record | {"reference": 1}, "other parts"),
    ):  # fmt: skip
        torch.save(changed, file)
        with pytest.raises(ValueError, match=said) as seen:
            diagnosed(file)
        assert "\n" not in str(seen.value)


def test_a_place_that_cannot_be_a_file_is_refused_before_a_round(tmp_path):
    (tmp_path / "file").write_text("")
    os.mkfifo(tmp_path / "pipe")
    told = []
    for path, said in ((tmp_path, "read .*: Is a directory"), (tmp_path / "file" / "x", "write .*/file/x: "),
                       (tmp_path / "pipe", "read .*/pipe: it is no file")):  # fmt: skip
        with pytest.raises(OSError, match=f"keep: cannot {said}") as seen:
            diagnosed(path, progress=lambda *x: told.append(x))
        assert "\n" not in str(seen.value)
    assert told == []
    with pytest.raises(TypeError, match="keep: expected the path of a file, got 3"):
        diagnosed(3)


@pytest.mark.usefixtures("quick")
def test_a_disk_that_is_full_later_costs_no_report(tmp_path, monkeypatch):
    file = tmp_path / "bias.pt"

    def full(repeats, env_steps):
        def no_room(path, target):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(Path, "replace", no_room)

    with pytest.warns(UserWarning, match="keep: cannot write .*bias.pt: No space left on device"):
        report = diagnosed(file, progress=full)
    assert same(report, diagnosed())
    assert not file.exists()
