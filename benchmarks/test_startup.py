"""What a person waits for around the computing: an app's help and its default run, beside `import torch` in one run."""

import subprocess
import sys
import time
from pathlib import Path

APP = Path(__file__).parents[1] / "apps" / "maml_tabular.py"
ROUNDS = 3


def seconds(*arguments):
    """Wall time of a Python program."""
    begun = time.monotonic()
    subprocess.run([sys.executable, *map(str, arguments)], check=True, capture_output=True)
    return time.monotonic() - begun


def test_help_takes_a_third_of_importing_torch_and_the_default_run_little_more_than_twice_as_long(tmp_path):
    """The best of three each, in turn; a run at the paper's setting draws two figures and decides the claims."""
    torch, shown, run = [], [], []
    for number in range(ROUNDS):
        torch.append(seconds("-c", "import torch"))
        shown.append(seconds(APP, "--help"))
        run.append(seconds(APP, "--wandb", "disabled", "--run-dir", tmp_path / str(number)))
    print(f"\nimport torch {min(torch):.2f} s; of that --help {min(shown) / min(torch):.2f}", end="")
    print(f", the default run {min(run) / min(torch):.2f}")
    assert min(shown) <= 0.35 * min(torch)
    assert min(run) <= 2.3 * min(torch)
