"""What a run leaves on disk, and what it makes of what it finds there."""

import dataclasses
import hashlib
import io
import math
import os
import zipfile

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from gm_mgrl_atari import AtariGames, CheckpointError, NotFiniteError, Trainer, Training, checkpoints

TINY = Training(algorithm="a2c", envs=1, steps=2, updates=4)


@pytest.fixture
def trainer(which_side, tmp_path, small_network):
    def make(*, game="", seed=0, device="cpu", warn=print, **changes):
        training = dataclasses.replace(TINY, **changes)
        games = which_side(training.envs)
        games.game = game
        return Trainer(training, [games], seed=seed, device=device, folder=tmp_path, warn=warn)

    return make


class Malicious:
    """Pickles to a command."""

    def __reduce__(self):
        return (print, ("this must never be printed",))


def set_bias(change):
    """What replaces the policy's biases by something made of them."""
    return lambda record: record["params"].update({"policy.bias": change(record["params"]["policy.bias"])})


CHANGES = {
    "shape": set_bias(lambda bias: torch.zeros(7)),
    "nan": lambda record: record["adam"]["first"]["policy.bias"].fill_(math.nan),
    "the format before": lambda record: record.update(format="gm-mgrl-atari 3"),
    "unfolding rows": lambda record: record.update(rows=[unfolding()]),
    "unfolding settings": lambda record: record["settings"].update(inner_lr=unfolding()),
    "settings": lambda record: record["settings"].update(inner_lr=1.0),
    "game": lambda record: record.update(game="Pong"),
    "seed": lambda record: record.update(seed=1),
    "text in rows": lambda record: record.update(rows=["x"]),
    "other rows": lambda record: record.update(rows=[{"a": 1}]),
    "text in a row": lambda record: record["rows"][0].update(gamma="x"),
    "a row twice": lambda record: record["rows"].append(record["rows"][-1]),
    "updates below 0": lambda record: record.update(updates=-5),
    "updates beyond": lambda record: record.update(updates=5),
    "a truth": lambda record: record.update(updates=True),
    "step": lambda record: record["adam"].update(step=-1),
    "meta step": lambda record: record["meta_adam"].update(step=9),
    "emulated": lambda record: record.update(emulated=1),
    "second": lambda record: record["adam"]["second"]["policy.bias"].fill_(-1.0),
    "generator": lambda record: record["generator"].zero_(),
    "no generator": lambda record: record.pop("generator"),
    "sparse": set_bias(lambda bias: bias.to_sparse()),
    "meta": set_bias(lambda bias: bias.to("meta")),
}


def content(path):
    return torch.load(path, weights_only=True)


def put(path, record):
    """Writes a record as the package does, with a right checksum."""
    path.write_bytes(checkpoints.sealed(record))


def sealed(data):
    return data + checkpoints.SEAL + hashlib.sha256(data).hexdigest().encode()


def compressed(data):
    """The same entries, deflated, with a right checksum."""
    packed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as plain, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for entry in plain.infolist():
            archive.writestr(entry.filename, plain.read(entry))
    return sealed(packed.getvalue())


def unfolding():
    """A hundred bytes of pickle whose text would be 2⁶⁰ numbers long."""
    rows = [0]
    for _ in range(60):
        rows = [rows, rows]
    return rows


def spoil(how, path):
    data = path.read_bytes()
    if how == "truncated":
        path.write_bytes(data[:-1000])
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "flipped":
        middle = len(data) // 2
        path.write_bytes(data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :])
    elif how == "without checksum":
        path.write_bytes(data.rpartition(checkpoints.SEAL)[0])
    elif how == "compressed":
        path.write_bytes(compressed(data))
    elif how == "large":
        with path.open("ab") as file:
            file.truncate(2**40)  # a hole: it takes no room on the disk
    elif how == "pipe":
        path.unlink()
        os.mkfifo(path)
    elif how == "device":
        path.unlink()
        path.symlink_to("/dev/zero")
    elif how == "renamed":
        put(path, content(path) | {"updates": 2, "rows": []} | {"adam": content(path)["adam"] | {"step": 2}})
    elif how == "malicious":
        put(path, content(path) | {"rows": Malicious()})
    elif how == "foreign":
        put(path, {"state_dict": {}})
    else:
        record = content(path)
        CHANGES[how](record)
        put(path, record)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("truncated", "expected a complete checkpoint, got one that ends without a checksum"),
        ("empty", "expected a complete checkpoint, got one that ends without a checksum"),
        ("without checksum", "expected a complete checkpoint, got one that ends without a checksum"),
        ("flipped", "expected a complete checkpoint, got one that is not what its checksum says"),
        ("compressed", "expected a checkpoint that is not compressed, got one that unpacks to "),
        ("large", "expected a checkpoint of at most "),
        ("pipe", "expected a complete checkpoint, got no file"),
        ("device", "expected a complete checkpoint, got no file"),
        ("renamed", "updates: expected 4, as its name says, got 2"),
        ("the format before", "expected format 'gm-mgrl-atari 4', got 'gm-mgrl-atari 3'"),
        ("unfolding rows", "rows: expected numbers for updates, env_steps, "),
        ("unfolding settings", "settings inner_lr: expected 0.0007, got [[[[[["),
        ("malicious", "expected tensors and numbers only, got"),
        ("foreign", "expected format 'gm-mgrl-atari 4', got None"),
        ("shape", "params policy.bias: expected torch.float32 of shape (3,), got torch.float32 of shape (7,)"),
        ("nan", "adam first policy.bias: expected finite numbers, got NaN or infinity"),
        ("settings", "settings inner_lr: expected 0.0007, got 1.0"),
        ("game", "game: expected '', got 'Pong'"),
        ("seed", "seed: expected 0, got 1"),
        ("text in rows", "rows: expected numbers for updates, env_steps, "),
        ("other rows", "rows: expected numbers for updates, env_steps, "),
        ("text in a row", "rows: expected numbers for updates, env_steps, "),
        ("a row twice", "rows: expected growing numbers of updates up to 4, got 4 after 4"),
        ("updates below 0", "updates: expected 0 to 4, got -5"),
        ("updates beyond", "updates: expected 0 to 4, got 5"),
        ("a truth", "updates: expected int, got bool"),
        ("step", "adam step: expected 4, the number of updates, got -1"),
        ("meta step", "meta_adam step: expected 0 to 4, got 9"),
        ("emulated", "emulated: expected at least 8, got 1"),
        ("second", "adam second policy.bias: expected numbers of at least 0 as second moments, got some below"),
        ("generator", "expected a record of training, got RuntimeError: "),
        ("no generator", "expected a record of training, got KeyError: "),
        (
            "sparse",
            "params policy.bias: expected torch.float32 of shape (3,), got torch.float32 of shape (3,), torch.sp",
        ),
        (
            "meta",
            "params policy.bias: expected torch.float32 of shape (3,), got torch.float32 of shape (3,), without d",
        ),
    ],
)
def test_a_bad_checkpoint_is_refused_and_the_one_before_used(trainer, tmp_path, capsys, how, message):
    trainer().run(log_every=1, checkpoint_seconds=0.0)
    newest = tmp_path / "checkpoint-000000004.pt"
    spoil(how, newest)
    warnings = []
    assert trainer(warn=warnings.append).progress.updates == 3
    (warning,) = warnings
    assert warning.startswith(f"refused {newest}: {message}")
    assert "\n" not in warning
    spoil(how, tmp_path / "checkpoint-000000003.pt")
    assert [path.name for path in tmp_path.glob("*.refused")] == ["checkpoint-000000004.pt.refused"]
    with pytest.raises(CheckpointError, match=r"no usable checkpoint in .*; move them away to begin anew"):
        trainer()
    assert (tmp_path / "checkpoint-000000003.pt").exists()
    assert capsys.readouterr().out.count("must never") == 0


@pytest.fixture
def good(trainer, tmp_path):
    """The bytes of a whole checkpoint, and the run that it is of."""
    run = trainer()
    run.step()
    run.save()
    return checkpoints.file_of(tmp_path, 1).read_bytes(), run


@given(data=st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_is_changed_in_a_file_is_seen(good, data):
    """A flipped bit, a cut, a byte more or less, or a part written over, anywhere: refused in a line."""
    whole, run = good
    at = data.draw(st.integers(0, len(whole) - 1), "at")
    new = data.draw(st.one_of(st.integers(0, 7).map(lambda bit: bytes([whole[at] ^ 1 << bit])), st.binary(max_size=50)))
    end = data.draw(st.sampled_from([at, at + 1, at + len(new), len(whole)]))
    spoilt = whole[:at] + new + whole[end:]
    path = checkpoints.file_of(run.folder, 1)
    path.write_bytes(spoilt)
    assume(spoilt != whole)
    with pytest.raises(CheckpointError, match=r"\A.*expected a complete checkpoint, got one that.*\Z"):
        checkpoints.load(path, run._form(), run._restored)


@given(
    size=st.integers(10**6, 10**15), packed=st.sampled_from([zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_would_unpack_to_more_than_the_file_is_not_unpacked(good, size, packed):
    """An archive says how large its entries are; the checksum of this one is right."""
    _, run = good
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", packed) as file:
        file.writestr("archive/data.pkl", b"x" * 1000)
        file.infolist()[0].file_size = size
    path = checkpoints.file_of(run.folder, 1)
    path.write_bytes(sealed(archive.getvalue()))
    with pytest.raises(CheckpointError, match=f"not compressed, got one that unpacks to {size} bytes"):
        checkpoints.load(path, run._form(), run._restored)


def test_a_copy_of_other_updates_is_not_taken_for_them(trainer, tmp_path):
    trainer().run(keep_at=(2, 3))
    (tmp_path / "point-000000002.pt").write_bytes((tmp_path / "point-000000003.pt").read_bytes())
    again = trainer()
    assert again.kept(3).updates == 3
    with pytest.raises(CheckpointError, match="updates: expected 2, as its name says, got 3"):
        again.kept(2)


def test_a_checkpoint_of_other_seeds_of_the_game_is_another_runs(tmp_path, small_network):
    def run(seed):
        training = dataclasses.replace(TINY, updates=1)
        return Trainer(training, [AtariGames("Pong", 1, seed, threads=1)], folder=tmp_path, warn=lambda _: None)

    run(3).save()
    assert run(3).record()["game_seed"] == 3
    with pytest.raises(CheckpointError, match="game_seed: expected 4, got 3"):
        run(4)


def test_what_is_not_a_checkpoint_of_ours_is_left_alone(trainer, tmp_path):
    """Files of other names, and the targets of links, stay as they are; nothing waits for a pipe."""
    others = ["notes.tmp", "checkpoint-best.pt", "checkpoint-000000009 (copy).pt"]
    for name in others:
        (tmp_path / name).write_text("mine")
    outside = tmp_path / "outside"
    outside.write_text("mine")
    (tmp_path / "log.csv").symlink_to(outside)
    trainer().run()
    assert {(tmp_path / name).read_text() for name in (*others, "outside")} == {"mine"}
    (tmp_path / "log.csv").unlink()
    os.mkfifo(tmp_path / "log.csv")
    trainer().run()
    assert (tmp_path / "log.csv").read_text().startswith("updates,")


def test_settings_from_numpy_go_on_like_others(trainer):
    """A checkpoint can't hold NumPy's scalars, which the settings make plain ones."""
    plain = Training()
    for name, value in {"envs": np.int64(1), "inner_lr": np.float32(0.5), "conditioned": np.False_}.items():
        object.__setattr__(plain, name, value)  # in tests every annotation is enforced
    plain.__post_init__()
    assert (plain.envs, plain.inner_lr, plain.conditioned) == (1, 0.5, False)
    assert {type(value) for value in dataclasses.asdict(plain).values()} == {str, type(None), int, float, bool}
    trainer(seed=np.int64(3)).run()
    assert trainer(seed=3).progress.updates == 4


def test_a_checkpoint_of_parameters_that_require_gradients_is_one_without(trainer, tmp_path):
    trainer().run()
    newest = tmp_path / "checkpoint-000000004.pt"
    record = content(newest)
    put(newest, record | {"params": {name: torch.nn.Parameter(value) for name, value in record["params"].items()}})
    assert not any(value.requires_grad for value in trainer().progress.point.params.values())


def test_refused_checkpoints_make_no_good_one_go(trainer, tmp_path):
    """Files of later updates that can't be used don't count among the two that are kept."""
    first = trainer()
    first.step()
    first.save()
    for updates in (900, 901):
        checkpoints.file_of(tmp_path, updates).write_bytes(b"x")
    checkpoints.file_of(tmp_path, 902).mkdir()
    second = trainer()
    for _ in range(2):
        second.step()
        second.save()
    names = {path.name for path in tmp_path.iterdir()}
    assert {name for name in names if name.endswith(".pt")} == {f"checkpoint-00000000{n}.pt" for n in (2, 3)}
    assert {name for name in names if name.endswith(".refused")} == {
        f"checkpoint-{n:09d}.pt.refused" for n in (900, 901, 902)
    }


def test_what_another_process_leaves_later_makes_no_good_one_go(trainer, tmp_path):
    first = trainer()
    for updates in (900, 901):
        checkpoints.file_of(tmp_path, updates).write_bytes(b"x")
    first.step()
    first.save()
    assert checkpoints.file_of(tmp_path, 1).exists()


def test_of_checkpoints_of_other_settings_none_is_renamed(trainer, tmp_path):
    trainer().run(checkpoint_seconds=0.0)
    before = sorted(path.name for path in tmp_path.iterdir())
    with pytest.raises(CheckpointError, match=r"settings inner_lr: expected 0.5, got 0.0007; move them away"):
        trainer(inner_lr=0.5)
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_on_another_kind_of_device_the_random_stream_is_new(trainer, tmp_path):
    """A GPU's generator has a state of 16 bytes; it is the same new stream every time, and not the first one."""
    first = trainer()
    first.step()
    first.save()
    newest = tmp_path / "checkpoint-000000001.pt"
    put(newest, content(newest) | {"device": "cuda", "generator": torch.zeros(16, dtype=torch.uint8)})
    second, third = trainer(), trainer()
    assert second.progress.updates == 1
    states = [one._generator.get_state() for one in (second, third)]
    assert torch.equal(*states)
    assert not torch.equal(states[0], torch.Generator().manual_seed(0).get_state())
    second.run()


@pytest.mark.parametrize(
    ("fails_at", "keep_at", "settings"),
    [
        (0, (0, 2, 4), {}),
        (2, (0, 2, 4), {}),
        (4, (0, 2, 4), {}),
        (4, (4,), {"algorithm": "mgrl", "schedule": "online", "inner_steps": 3, "updates": 7}),
    ],
)
def test_a_copy_that_an_interruption_kept_from_being_written_is_written_on_going_on(
    trainer, monkeypatch, fails_at, keep_at, settings
):
    save = checkpoints.save

    def interrupted(folder, record, updates, *, prefix="checkpoint"):
        if prefix == "point" and updates == fails_at:
            raise KeyboardInterrupt
        return save(folder, record, updates, prefix=prefix)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "save", interrupted)
        with pytest.raises(KeyboardInterrupt):
            trainer(**settings).run(log_every=1, keep_at=keep_at)
    second = trainer(**settings)
    second.run(log_every=1, keep_at=keep_at)
    third = trainer(**settings)
    assert [third.kept(at).updates for at in keep_at] == ([6] if settings else [*keep_at])


def test_a_row_and_its_update_are_in_a_checkpoint_together(trainer, monkeypatch):
    """An interruption while the row of update 2 is being made, or is being shown, leaves neither out of the log."""
    for where in ("_row", "_write_log"):
        first = trainer()
        original = getattr(first, where)

        def interrupted(*given, first=first, original=original):
            if given and first.progress.updates == 2:
                raise KeyboardInterrupt
            return original(*given)

        with monkeypatch.context() as patch:
            patch.setattr(first, where, interrupted)
            with pytest.raises(KeyboardInterrupt):
                first.run(log_every=1)
        assert trainer().progress.updates == 1
    assert [row["updates"] for row in trainer().run(log_every=1)] == [1, 2, 3, 4]


def not_a_number(trainer):
    """Makes one parameter NaN before the third update, as nothing that is checked has done."""
    step = trainer.step

    def stepping():
        if trainer.progress.updates == 2:
            trainer.progress.point.params["policy.weight"][0, 0] = math.nan
        return step()

    return stepping


@pytest.mark.parametrize("algorithm", ["a2c", "mgrl-lvc"])
def test_parameters_that_are_not_finite_stop_the_run_and_are_not_saved(trainer, tmp_path, monkeypatch, algorithm):
    first = trainer(algorithm=algorithm)
    monkeypatch.setattr(first, "step", not_a_number(first))
    with pytest.raises(NotFiniteError, match="got NaN or infinity in the policy's probabilities"):
        first.run(log_every=1)
    with pytest.raises(NotFiniteError, match=r"got NaN or infinity in params policy\.weight"):
        first.save()
    assert list(tmp_path.glob("*.pt")) == []


@pytest.mark.parametrize("algorithm", ["a2c", "mgrl-lvc"])
def test_an_update_that_gives_nan_names_the_parameters(trainer, tmp_path, algorithm):
    """ε far too small for float32, which `Training.check` would refuse: a gradient of zero makes a step of 0 / 0."""
    first = trainer(algorithm=algorithm)
    object.__setattr__(first.training, "adam_eps", 1e-50)
    first.learner = first.training.learner(first.network)
    with pytest.raises(NotFiniteError, match=r"got NaN or infinity in .*conv1.weight"):
        first.run(log_every=1)
    assert first.progress.updates == 0
    assert list(tmp_path.glob("*.pt")) == []


def test_a_step_too_large_stops_the_run(trainer):
    with pytest.raises(NotFiniteError, match="expected finite numbers, got NaN or infinity in"):
        trainer(inner_lr=1e30).run(log_every=1)


def test_after_the_last_update_there_is_no_step(trainer):
    first = trainer()
    first.run()
    with pytest.raises(ValueError, match="updates: expected fewer than 4 so far, when all are done"):
        first.step()
