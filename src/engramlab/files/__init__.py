"""What is on disk is whole or absent: writing, run folders, journals, documents and tables. No torch."""
