"""Training: the loop, its parts, and runs that can be stopped at any time and resumed."""
