"""Text from facts: populations, templates, entries and questions. No tensor library is imported here."""
