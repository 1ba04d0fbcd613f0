"""From predictions to numbers: confusion matrix, boundary bands, result files and pictures."""
