"""What the tabular experiments share: settings and cells, random MDPs, checks, labels, and what a claim is."""
