"""Forward passes: hooks, logits only at targets, tails, shared beginnings, generation."""
