"""Look into feature caches, compare them, and correct their labels."""
