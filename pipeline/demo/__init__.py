"""The synthetic data set: H&E-like images that a computer drew."""
