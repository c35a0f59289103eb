"""What report pages are made of: figures, tables, maps, blocks."""
