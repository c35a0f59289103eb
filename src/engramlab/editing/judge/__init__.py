"""What an edit did: every query before and after it, and the metrics."""
