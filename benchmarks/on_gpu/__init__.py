"""What benchmarks/gpu.py measures, a module for each part of the project."""
