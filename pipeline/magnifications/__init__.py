"""Train on one magnification and test on another."""
