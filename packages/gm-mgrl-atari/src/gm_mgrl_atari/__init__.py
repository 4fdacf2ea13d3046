"""A2C and meta-gradient reinforcement learning with low-variance-curvature correction, on Atari or anything else."""

from gm_mgrl_atari.actor_critic import ActorCritic, Functional, functional
from gm_mgrl_atari.checkpoints import CheckpointError
from gm_mgrl_atari.distributions import Categorical, Distribution, Normal
from gm_mgrl_atari.games import PAPER_GAMES, AtariGames, Games, Step, game_name, rom_name
from gm_mgrl_atari.learner import (
    ALGORITHMS,
    PARTS,
    Laps,
    Learner,
    NotFiniteError,
    Point,
    Training,
    Window,
    all_of_float32,
)
from gm_mgrl_atari.network import Network
from gm_mgrl_atari.objectives import (
    INITIAL_LOGITS,
    NAMES,
    Batch,
    Coefficients,
    Final,
    Terms,
    advantages,
    coefficients,
    combined,
    fixed_coefficients,
    policy_estimator,
    terms,
)
from gm_mgrl_atari.rollouts import Collector
from gm_mgrl_atari.trainer import Progress, Trainer
from gm_mgrl_atari.vector import GymnasiumGames

__all__ = [
    "ALGORITHMS", "INITIAL_LOGITS", "NAMES", "PAPER_GAMES", "PARTS", "ActorCritic", "AtariGames", "Batch",
    "Categorical", "CheckpointError", "Coefficients", "Collector", "Distribution", "Final", "Functional", "Games",
    "GymnasiumGames", "Laps", "Learner", "Network", "Normal", "NotFiniteError", "Point", "Progress", "Step", "Terms",
    "Trainer", "Training", "Window", "advantages", "all_of_float32", "coefficients", "combined",
    "fixed_coefficients", "functional", "game_name", "policy_estimator", "rom_name", "study", "terms", "throughput",
]  # fmt: skip
