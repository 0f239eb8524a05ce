"""Which images train, validate and test, with patients kept apart."""
