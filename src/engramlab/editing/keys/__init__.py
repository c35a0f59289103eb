"""Keys and values of MLPs: what ROME, MEMIT and AlphaEdit share."""
