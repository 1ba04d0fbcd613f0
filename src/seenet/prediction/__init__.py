"""From an image to a mask: the one predictor, its results, and the files `seenet predict` writes."""
