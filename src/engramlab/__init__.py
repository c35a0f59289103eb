"""engramlab: factual knowledge in language models — stored and extracted, acquired and forgotten, edited."""

__version__ = "0.1.0"
