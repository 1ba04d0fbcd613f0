"""Models as files for others to use."""
