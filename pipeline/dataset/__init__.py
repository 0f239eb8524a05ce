"""Images on disk to the rows of a manifest."""
