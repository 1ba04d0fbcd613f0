"""Shared by all other packages: errors, label sets, settings, files and the image decoder."""
