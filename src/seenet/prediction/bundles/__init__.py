"""Exported models: what they say of themselves, the predictor that runs them, their runtimes. Imports no torch."""
