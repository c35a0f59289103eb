"""Nearly linear probes of a frozen model: what do its hidden states say about an attribute, and where in the text?

Source: arXiv 2309.14316, sections 4 and 5 and their appendices (P-probing and Q-probing).
"""
