"""Ablations, stage probes and the paper's figures: each with the computation behind it."""
