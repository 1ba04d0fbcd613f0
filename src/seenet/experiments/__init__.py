"""What is done with trained models beyond one score: comparisons, figures, submissions."""
