"""New images to probabilities, and which patches they come from."""
