"""A package below the current folder, of which the driver imports only this file."""
