"""What is done with trained models beyond one score: the paper's tables and figures, comparisons, submissions."""
