"""Draws the pictures of docs/images by the runs of docs/pictures.toml and names those that were out of date.

    uv run nox -s pictures
    uv run nox -s pictures -- --check headline lola

A run goes on from what runs/pictures has of it, so that a finished one is only drawn anew; without that folder all is
computed. With `--check` nothing is written, and the exit status is 1 if a picture is out of date.
"""

import argparse
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path

ROOT = Path(__file__).parents[1]
DOCS, RUNS = ROOT / "docs", ROOT / "runs" / "pictures"
TABLE, IMAGES = DOCS / "pictures.toml", DOCS / "images"
KINDS = ("pictures", "files")
SCRIPTS, OUT = "scripts", "{out}"
"""The part of the table with pictures that a script draws, and what stands there for where it goes."""
LAST = 2000
"""Characters of what a run said that are shown if it fails."""


@dataclass(frozen=True)
class Run:
    """One run: its app and flags, and by the name in docs/images the name that each picture has in figures/."""

    name: str
    command: str
    pictures: dict[str, str]
    files: dict[str, str] = field(default_factory=dict)
    """Other files of the run that docs/ keeps: path in docs/ and path in the run directory."""

    @property
    def folder(self) -> Path:
        """Its run directory."""
        return RUNS / self.name

    @property
    def line(self) -> list[str]:
        """The command line that starts it or goes on with it."""
        if OUT in self.command:
            (self.folder / "figures").mkdir(parents=True, exist_ok=True)
            out = str(self.folder / "figures" / f"{self.name}.png")
            return [sys.executable, *(word.replace(OUT, out) for word in shlex.split(self.command))]
        where = ["--run-dir", str(self.folder), "--wandb", "disabled"]
        return [sys.executable, *shlex.split(self.command), *where]


def table(path: Path = TABLE) -> list[Run]:
    """The runs, those of apps first and then those of scripts, which may need them."""
    parts = tomllib.loads(path.read_text())
    scripts = parts.pop(SCRIPTS, {})
    runs = [Run(name=name, **{"pictures": {}, **part}) for name, part in parts.items()]
    return [*runs, *(Run(name, command, {name: name}) for name, command in scripts.items())]


def chosen(runs: Sequence[Run], names: Sequence[str]) -> list[Run]:
    """The runs with the pictures that are named, by themselves or by their run; all without names.

    Raises ValueError if there is no such name.
    """
    known = [*(run.name for run in runs), *(kept for run in runs for kept in (*run.pictures, *run.files))]
    for name in names:
        if name not in known:
            near = get_close_matches(name, known, 1)
            raise ValueError(
                f"no picture or run '{name}' in {TABLE.name}" + (f": did you mean {near[0]}?" if near else "")
            )
    kept = [
        run if not names or run.name in names
        else replace(
            run, **{kind: {kept: own for kept, own in getattr(run, kind).items() if kept in names} for kind in KINDS}
        )
        for run in runs
    ]  # fmt: skip
    return [run for run in kept if run.pictures or run.files]


def out_of_date(run: Run, docs: Path) -> Iterator[tuple[str, str, Path, bytes]]:
    """What docs/ lacks of a run or has otherwise: its name, why, its place, and what it is now.

    Raises ValueError if the run has not made it.
    """
    pictures = {name: (f"figures/{own}.png", docs / "images" / f"{name}.png") for name, own in run.pictures.items()}
    for name, (own, kept) in (pictures | {name: (own, docs / name) for name, own in run.files.items()}).items():
        if not (run.folder / own).exists():
            raise ValueError(f"{name}: the run {run.name} has made no {own}")
        now = (run.folder / own).read_bytes()
        if not kept.exists():
            yield name, "missing", kept, now
        elif kept.read_bytes() != now:
            yield name, "changed", kept, now


def unlisted(runs: Sequence[Run], images: Path) -> list[str]:
    """The pictures of docs/images that are not in the table."""
    listed = {picture for run in runs for picture in run.pictures}
    return sorted(path.stem for path in images.glob("*.png") if path.stem not in listed)


def run_through(run: Run) -> None:
    """Runs it, or goes on with it; raises ValueError with its last words."""
    run.folder.parent.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        run.line, cwd=ROOT, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    )
    if done.returncode:
        raise ValueError(f"{run.name}: {run.command} ended with {done.returncode}\n{done.stdout[-LAST:]}")


def main(arguments: Sequence[str]) -> int:
    """Draws, compares, and writes what has changed unless it is only to be checked."""
    parser = argparse.ArgumentParser(prog="pictures", description="Draws the pictures of the documentation.")
    parser.add_argument("names", nargs="*", help="only these pictures, or those of these runs")
    parser.add_argument("--check", action="store_true", help="write nothing; status 1 if a picture is out of date")
    options = parser.parse_args(arguments)
    runs = table()
    found = []
    try:
        for run in chosen(runs, options.names):
            print(f"{run.name}: {run.command}", flush=True)
            run_through(run)
            for name, why, kept, now in out_of_date(run, DOCS):
                found.append(name)
                print(f"  out of date: {name} ({why})", flush=True)
                if not options.check:
                    kept.write_bytes(now)
    except ValueError as error:
        print(f"pictures: {error}", file=sys.stderr)
        return 2
    loose = [] if options.names else unlisted(runs, IMAGES)
    for picture in loose:
        print(f"  not in {TABLE.name}: {picture}")
    print(
        "all pictures are up to date"
        if not found
        else f"{len(found)} out of date" + (", now written" * (not options.check))
    )
    return 1 if loose or (found and options.check) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
