"""Live rows: each is read once, over kills, restarts from a checkpoint, and readers that come at any moment."""

from dataclasses import dataclass

import pytest

from gm_lab.run import reading
from gm_lab.run.live import LiveRows, Tail


@dataclass(frozen=True)
class Cell:
    game: str = "Qbert"


def row(step):
    return {"game": "Qbert", "updates": step, "score": step / 4, "note": "a,b"}


@pytest.fixture
def live(tmp_path):
    """Opens the cell's live file as a cell does that is begun, or begun again."""
    return lambda: LiveRows(tmp_path, Cell(), step="updates")


def test_rows_come_back_once_and_with_their_types(live, tmp_path):
    writer = live()
    tail = Tail(writer.path)
    assert tail.rows() == []
    assert not writer.path.exists()
    writer.append(row(1))
    assert tail.rows() == [row(1)]
    assert tail.rows() == []
    writer.append(row(2))
    writer.append(row(3) | {"score": float("inf")})
    assert tail.rows() == [row(2), row(3) | {"score": float("inf")}]
    assert writer.path.parent == tmp_path / "live"


@pytest.mark.parametrize("checkpoint", [0, 2, 4])
def test_a_restart_from_a_checkpoint_neither_loses_nor_doubles_rows(live, checkpoint):
    before = live()
    tail = Tail(before.path)
    for step in range(1, 5):
        before.append(row(step))
    read = tail.rows()
    again = live()
    for step in range(checkpoint + 1, 7):
        again.append(row(step))
    assert read + tail.rows() == [row(step) for step in range(1, 7)]
    assert Tail(again.path).rows() == [row(step) for step in range(1, 7)]


@pytest.mark.parametrize("kept", [3, 15, 30, 40])
def test_a_line_torn_by_a_kill_is_written_again(live, kept):
    writer = live()
    for step in (1, 2, 3):
        writer.append(row(step))
    whole = writer.path.read_bytes()
    writer.path.write_bytes(whole[:kept])
    tail = Tail(writer.path)
    read = tail.rows()
    again = live()
    for step in (1, 2, 3):
        again.append(row(step))
    assert again.path.read_bytes() == whole
    assert read + tail.rows() == [row(1), row(2), row(3)]


def test_what_is_no_row_is_refused(live):
    writer = live()
    writer.append(row(1))
    with pytest.raises(ValueError, match="expected the columns game, updates, score, note; got updates"):
        writer.append({"updates": 2})
    with pytest.raises(ValueError, match=r"expected a whole number in the column updates, got 1\.5"):
        writer.append(row(1.5))
    with pytest.raises(ValueError, match="expected text without line breaks"):
        writer.append(row(2) | {"note": "a\nb"})


def test_a_full_disk_does_not_end_the_training(live, monkeypatch):
    writer = live()
    writer.append(row(1))
    with monkeypatch.context() as patch:
        patch.setattr(reading, "opened", lambda *_args: (_ for _ in ()).throw(OSError(28, "full")))
        writer.append(row(2))
    assert Tail(writer.path).rows() == [row(1)]
