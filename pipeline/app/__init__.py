"""A local web page on which images are predicted."""
