"""Check every image and mask of a data set: before training, and for `seenet data check`.

`scan` reads the files, `stats` counts ids, `inspection` finds errors, `summary` prints them;
`propose` describes a folder.
"""
