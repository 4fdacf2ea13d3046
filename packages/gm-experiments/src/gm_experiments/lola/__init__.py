"""What ails LOLA-DiCE in iterated matrix games, and what replay does for it (paper, Section 5.2)."""
