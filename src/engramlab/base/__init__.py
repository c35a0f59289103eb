"""The words everyone speaks: facts, rows, errors, options, randomness by position, intervals, progress. No torch."""
