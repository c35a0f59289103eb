"""Asking a model: evidence of what it holds, and what it answers."""
