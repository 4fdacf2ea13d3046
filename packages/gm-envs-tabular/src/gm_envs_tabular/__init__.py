"""Random tabular MDPs, batched seeded rollouts and a Gymnasium environment."""
