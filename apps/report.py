"""One HTML page about any runs, finished or not, that needs no account and no network; on request a W&B Report, too.

uv run apps/report.py runs/maml_tabular/* --out runs/maml.html
"""

import sys

from gm_lab.report_command import main

if __name__ == "__main__":
    sys.exit(main())
