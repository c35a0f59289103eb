"""Corpora that a chat model writes."""
