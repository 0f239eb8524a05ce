"""Stage two: a feature cache to classifiers and their predictions. It never imports the encoder."""
