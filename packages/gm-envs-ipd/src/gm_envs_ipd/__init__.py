"""Iterated 2×2 matrix games: payoffs, batched two-player rollouts, replay, known strategies and a PettingZoo environment."""
