"""From a picture to a mask: the predictor, its results, and the files `seenet predict` writes."""
