"""The apps under SIGKILL at random moments: the short form of benchmarks/kill_apps.py."""

import kill_apps


def test_killed_apps_end_with_the_same_results(capsys):
    assert kill_apps.main(["--kills", "3"]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[1:]]
    assert [row[0] for row in rows] == ["lirpg_tabular", "lola_offpolicy", "maml_tabular"]
    assert [(kills, identical) for _, kills, _, identical in rows] == [("1", "1")] * 3


def test_a_difference_is_reported(monkeypatch, capsys):
    answers = iter([[b"a"], [b"b"], [b"a"]])  # undisturbed, and after each kill
    monkeypatch.setattr(kill_apps, "finish", lambda *_: next(answers))
    hits = iter([True, False, True])
    monkeypatch.setattr(kill_apps, "killed", lambda *_: next(hits))
    assert kill_apps.main(["--kills", "2", "--apps", "lola_offpolicy"]) == 1
    assert capsys.readouterr().out.splitlines()[-1].split() == ["lola_offpolicy", "2", "0", "1"]


def test_a_run_that_fails_of_itself_is_named(monkeypatch, capsys):
    monkeypatch.setitem(kill_apps.BUDGETS, "lola_offpolicy", "--seeds none")
    assert kill_apps.main(["--kills", "2", "--apps", "lola_offpolicy"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("kill_apps: lola_offpolicy ended with status 2, its last line: ")
    assert "--seeds" in line
