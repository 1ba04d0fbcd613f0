"""Score predictions: confusion matrix, metrics, result files and figures."""
