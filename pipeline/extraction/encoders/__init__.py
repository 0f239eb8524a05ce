"""Encoders other than VGG16: a model, a transform, and an identifier that changes when they do."""
