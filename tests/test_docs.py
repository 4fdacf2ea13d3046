"""The documentation: its code runs and prints what it says, its links lead somewhere, its flags exist."""

import contextlib
import importlib
import io
import os
import re
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import jaxtyping
import pytest
from threads import one_thread  # noqa: F401

import gm_lab
from gm_lab.growth import budget
from gm_lab.run import parse, parsed_line

ROOT = Path(__file__).parents[1]
PAGES = {path.relative_to(ROOT / "docs").as_posix(): path.read_text() for path in (ROOT / "docs").rglob("*.md")}
SNIPPET = re.compile(r"^--8<--\n(.+)\n--8<--$", re.MULTILINE)
BLOCK = re.compile(r"^```(\w+)([^\n]*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
NAMED = re.DOTALL | re.MULTILINE
BLOCKS = [(page, *match) for page, text in PAGES.items() for match in BLOCK.findall(text)]
PYTHON = [
    (page, SNIPPET.sub(lambda path: (ROOT / path[1]).read_text(), code))
    for page, kind, _, code in BLOCKS
    if kind == "python"
]
SHELL = [(page, code) for page, kind, _, code in BLOCKS if kind in ("sh", "bash")]
RUN = sorted({page for page, kind, _, _ in BLOCKS if kind == "bash"})
COMMANDS = sorted(
    {found for _, code in SHELL for found in re.findall(r"uv run apps/(\w+)\.py *(.*)", code.replace("\\\n", " "))}
)
INLINE = re.compile(r"`uv run apps/(\w+)\.py([^`#|&]*)`")
ENDS = ("results.csv", "report.html")

README = (ROOT / "README.md").read_text()
README_COMMANDS = {
    (app, " ".join(flags.split()))
    for app, flags in re.findall(r"uv run apps/(\w+)\.py([^`#|&]*?)(?:`|\n(?=```|uv))", README)
}
# in sentences and tables, those of the README and those of the pages
IN_TEXT = README_COMMANDS | {
    (app, " ".join(flags.split())) for text in PAGES.values() for app, flags in INLINE.findall(text)
}
# what follows a command of full scale, so that it ends within a second: the later of two equal flags counts
TABULAR = "--mdps 2 --repeats 2 --states 4 --actions 2 --horizon 5"
SMALL = {
    "maml_tabular": f"{TABULAR} --sample-sizes 4 8",
    "lirpg_tabular": f"{TABULAR} --sample-sizes 16 --inner-steps 1 2",
    "explore": f"{TABULAR} --sample-sizes 4 8 --inner-lrs 1 --inner-steps 1",
    "frontier": f"{TABULAR} --sample-sizes 24 --inner-steps 1 --points 0 --updates 2",
    "attribution": f"{TABULAR} --sample-sizes 8 --points 0",
    "lola_offpolicy": "--seeds 2 --updates 2 --horizon 5 --evaluation-size 8",
    "lola_attribution": "--seeds 2 --repeats 2 --horizon 6 --sample-sizes 4 --points 0",
    "lpg_tabular": "--meta-updates 2 --lifetime 10 --tasks 4 --side 3 --held-out 2 --held-out-side 4 --tuning-tasks 2 "
    "--hidden 4 --inner-lrs 1 --critic-lrs 1 --gae-lambdas 0.9 --mdps 2 --repeats 2 --sample-sizes 4 --inner-steps 1 2 "
    "--horizon 8 --rules 2",
    "mgrl_chain": "--updates 2 --inner-steps 1 --trajectories 4 --seeds 2",
    "mgrl_tabular": f"{TABULAR} --sample-sizes 4 --inner-steps 1 2 --points 0 2 --windows 2",
    "mgrl_minatar": "--envs 2 --steps 2 --env-steps 12 --seeds 1 --algorithms a2c mgrl-lvc",
    "mgrl_atari": "--envs 2 --steps 2 --env-steps 12 --seeds 1 --figure returns --algorithms a2c",
}
FULL_SCALE = sorted(
    {
        (app, " ".join(flags.split("#")[0].split()))
        for _, kind, _, code in BLOCKS
        if kind == "sh"
        for app, flags in re.findall(r"uv run apps/(\w+)\.py *(.*)", code.replace("\\\n", " "))
    }
    | IN_TEXT
)
# of a cluster, or of runs that are there already: their flags are read below, and their own tests run them
ELSEWHERE = {found for found in FULL_SCALE if "--ray-address" in found[1] or found[0] not in SMALL}


def test_every_block_is_of_a_kind_that_is_tested():
    kinds = {kind for _, kind, _, _ in BLOCKS}
    assert kinds <= {"python", "sh", "bash", "bibtex"}
    assert len(PYTHON) >= 3
    assert RUN


@pytest.mark.parametrize(("page", "code"), PYTHON)
def test_an_example_prints_what_it_says(page, code, tmp_path, monkeypatch):
    """A block may import an earlier one of its page that has a file's name, and write files where it is run."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    named = dict(re.findall(r'^```python title="(\w+\.py)"\n(.*?)^```', PAGES[page], NAMED))
    for name, text in named.items():
        (tmp_path / name).write_text(text)
        monkeypatch.delitem(sys.modules, name.removesuffix(".py"), raising=False)
    # as users run it: checking shapes makes of a diagnosis' seconds a minute
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, page, "exec"), {})
    for name in named:
        sys.modules.pop(name.removesuffix(".py"), None)
    assert printed.getvalue().splitlines() == re.findall(r"# → (.*)", code)


@pytest.mark.parametrize("page", RUN)
def test_the_bash_blocks_of_a_page_run(page, tmp_path):
    """Those that only show full-scale commands are marked sh: their syntax and flags are tested below."""
    for kind, title, code in BLOCK.findall(PAGES[page]):
        if named := re.search(r'title="([^"]+)"', title):
            (tmp_path / named[1]).write_text(code)
        if kind != "bash":
            continue
        script = code.replace("uv run apps/", f"{sys.executable} {ROOT}/apps/")
        done = subprocess.run(["bash", "-e", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        wanted = re.findall(r"--(?:run-dir|out) (\S+)", code)
        done_with = [[tmp_path / name, *(tmp_path / name / end for end in ENDS)] for name in wanted]
        assert [files[0] for files in done_with if not any(file.is_file() for file in files)] == []


@pytest.mark.parametrize(("page", "code"), SHELL)
def test_a_command_fits_a_screen(page, code):
    """At 1280 pixels a block of the site has room for 85 characters."""
    assert [line for line in code.splitlines() if len(line) > 85 and not line.startswith("#")] == []


@pytest.mark.parametrize(("page", "code"), SHELL)
def test_every_shell_block_is_one(page, code):
    done = subprocess.run(["bash", "-n", "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(("app", "flags"), sorted({*COMMANDS, *IN_TEXT}))
def test_the_apps_know_the_flags(app, flags):
    module = importlib.import_module(app)
    line = shlex.split(flags.split("#")[0])
    if hasattr(module, "EXPERIMENT"):
        parse(module.EXPERIMENT.settings, app, line)
    elif app in ("report", "reproduce"):
        parsed_line(sys.modules[module.main.__module__].Settings, app, line)
    else:  # it refuses the folder, not the flags, which would raise SystemExit
        assert module.main(line) == 2


@pytest.mark.parametrize(("app", "flags"), [found for found in FULL_SCALE if found not in ELSEWHERE])
def test_a_command_of_full_scale_runs_at_a_small_one(app, flags, tmp_path, monkeypatch):
    """Without drawing, which each app's own tests do."""
    (tmp_path / "mypackage").mkdir()
    (tmp_path / "mypackage" / "mymodule.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    experiment = replace(importlib.import_module(app).EXPERIMENT, figures=lambda *_: {})
    line = [*shlex.split(flags), *shlex.split(SMALL[app]), "--workers", "1", "--wandb", "disabled"]
    if "--until-decided" in line:
        line += [f"--most-{experiment.unit}", "4"]
    assert gm_lab.main(experiment, [*line, "--run-dir", str(tmp_path / "run")]) == 0
    assert (tmp_path / "run" / "claims.json").exists()


@pytest.mark.parametrize("app", sorted(SMALL))
def test_only_what_the_paper_did_is_at_its_budget_without_flags(app):
    """Whatever an app's budget is, a run of its defaults ends with a report that names it."""
    experiment = importlib.import_module(app).EXPERIMENT
    of_paper = app in ("maml_tabular", "lirpg_tabular", "lola_offpolicy")
    said, same = budget(experiment, experiment.settings())
    assert (said.startswith("at the paper's budget: 10 "), same) == (of_paper, of_paper)


OWN = """def my_estimator(seen):
    return ((seen.log_prob - seen.log_prob.detach()).exp() * seen.discount[:-1] * seen.advantage).sum(-1)
"""


def test_commands_that_are_only_read_are_few_and_known():
    assert {app for app, flags in ELSEWHERE if "--ray-address" not in flags} == {"mgrl_figures", "report", "reproduce"}
    assert {app for app, flags in ELSEWHERE if "--ray-address" in flags} == {"maml_tabular", "mgrl_atari"}
    assert set(SMALL) == {app for app, _ in FULL_SCALE} - {"mgrl_figures", "report", "reproduce"}
    assert len(README_COMMANDS) >= 10
    assert len(IN_TEXT) >= 20


def test_the_slurm_script_starts_a_head_workers_and_the_app(tmp_path):
    (script,) = [code for _, code in SHELL if "#SBATCH" in code]
    for name in ("srun", "uv", "sleep", "scontrol"):
        (tmp_path / name).write_text(f'#!/bin/sh\necho "{name} $*" >> {tmp_path}/said\necho node1\n')
        (tmp_path / name).chmod(0o755)
    env = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_NODELIST": "node[1-4]"}
    subprocess.run(["bash", "-eu", "-c", script.replace("exec ", "wait\nexec ")], env=env, check=True, timeout=60)
    said = (tmp_path / "said").read_text()
    assert "--nodelist=node1 uv run ray start --head" in said
    assert "uv run ray start --address node1:6379" in said
    assert "uv run apps/maml_tabular.py --launcher ray --ray-address node1:6379" in said


@pytest.mark.parametrize("page", PAGES)
def test_no_sentence_breaks_off(page):
    """A paragraph ends with a full stop or the like, or with the formula that it leads to."""
    text = re.sub(r"\A---\n.*?\n---\n|^( *)```.*?^\1```", "", PAGES[page], flags=re.DOTALL | re.MULTILINE)
    paragraphs = [part.strip() for part in text.replace("\n\n$$", " $$").split("\n\n")]
    words = [part for part in paragraphs if re.match(r"[\w*`(]|- ", part)]
    assert [part for part in words if not re.search(r"[.:;?!…][)*`\]]*$|\$\$$", part)] == []


def test_an_estimator_has_one_name():
    assert [page for page, text in PAGES.items() if re.search(r"Loaded DiCE(?!\]|:)", text)] == []


@pytest.mark.parametrize("page", PAGES)
def test_decimals_have_one_form(page):
    """0.08 and not .08."""
    prose = re.sub(r"```.*?```|`[^`]*`", "", PAGES[page], flags=re.DOTALL)
    assert re.findall(r"(?<![\w.)])\.\d.*", prose) == []


def test_links_lead_somewhere():
    for page, text in PAGES.items():
        folder = (ROOT / "docs" / page).parent
        targets = [t.partition("#")[0] for t in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in t]
        assert [target for target in targets if target and not (folder / target).exists()] == []


def test_every_package_and_every_app_has_a_page():
    packages = {path.parent.name for path in (ROOT / "packages").glob("*/pyproject.toml")}
    assert {Path(page).stem for page in PAGES if page.startswith("packages/")} == packages
    nav = (ROOT / "mkdocs.yml").read_text()
    shown = "".join(PAGES.values())
    assert [page for page in PAGES if page not in nav and f'--8<-- "docs/{page}' not in shown] == []
    mentioned = {app for app, _ in COMMANDS}
    apps = {path.stem for path in (ROOT / "apps").glob("*.py") if "gm_lab.main(EXPERIMENT)" in path.read_text()}
    assert apps - mentioned == set()


def test_the_cluster_pages_flags_exist():
    from gm_lab import RunSettings

    flags = re.findall(r"^\| `--([\w-]+)`", PAGES["cluster.md"], re.MULTILINE)
    assert len(flags) == 4
    assert all(hasattr(RunSettings(), flag.replace("-", "_")) for flag in flags)
