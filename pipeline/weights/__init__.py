"""The weights of the patch encoder: obtain, check, publish."""
