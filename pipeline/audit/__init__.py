"""What a split lets through: the audit of a data set and its folds for leaks."""
