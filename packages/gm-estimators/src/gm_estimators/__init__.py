"""Score-function surrogates and K-step meta-gradient estimators for reinforcement learning."""
