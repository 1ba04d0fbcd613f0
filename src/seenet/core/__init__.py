"""What everything else may use: errors, label sets, settings, files and the one image decoder."""
