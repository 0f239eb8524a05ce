"""What computes the features: one encoder for each library, and the choice among them."""
