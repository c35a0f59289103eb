"""Edited models in folders: saved, loaded, undone edit by edit, merged."""
