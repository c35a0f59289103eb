"""The searches behind edits: gradient descent and values, many independent problems in a batch."""
