"""Exported models: their metadata, predictor and runtimes, without torch."""
