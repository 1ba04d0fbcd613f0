"""Exported models: their metadata, predictor and runtimes. Imports no torch."""
