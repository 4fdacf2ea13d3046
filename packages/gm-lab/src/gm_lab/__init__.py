"""What every experiment needs around its maths: run directory, resumable grid, launchers, tracking, figures, verdicts."""
