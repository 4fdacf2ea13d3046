"""Exact values, gradients, Hessians and meta-gradients of tabular reinforcement-learning problems."""
