"""Archives of predictions for the evaluation servers of Pascal VOC and Cityscapes."""
