"""The results of a run as one page that explains itself."""
