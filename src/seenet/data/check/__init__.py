"""Check every picture and mask of a data set: before training, and for `seenet data check`."""
