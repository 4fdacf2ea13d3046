"""MinAtar's steps per second: environments alone, a plain A2C, ours with log and checkpoints, Stable-Baselines3's A2C.

    uv run benchmarks/minatar_speed.py
    uv run --with stable-baselines3 benchmarks/minatar_speed.py --sb3

All on one thread with 64 environments, 5 steps, 16 filters of 3×3 and 128 units, one after the other in each of some
rounds; a line has the median over these. Wall time counts, and beside it the processor's, which others on the same
machine do not slow.
"""
