"""Edits that decide by the prompt whether they speak: codebooks, side memories, and how they are trained."""
