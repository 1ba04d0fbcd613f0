"""Check every picture and mask of a data set: before training, and for `seenet data check`.

`scan` reads, `stats` counts, `inspection` judges, `summary` says it; `propose` describes a folder.
"""
