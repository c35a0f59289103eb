"""Formats of passages: one file each."""
