"""`python -m gm_experiments.reproduce` is apps/reproduce.py."""

import sys

from gm_experiments.reproduce import main

if __name__ == "__main__":
    sys.exit(main())
