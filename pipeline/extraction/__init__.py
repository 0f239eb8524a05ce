"""Stage one: images to a feature cache. It never imports stage two."""
