"""How facts are acquired and forgotten in pretraining: injecting passages into a stream, and reading the curves."""
