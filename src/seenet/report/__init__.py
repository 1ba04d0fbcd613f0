"""HTML pages: the report of a run, galleries of images with masks, and the data check."""
