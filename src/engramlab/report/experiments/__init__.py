"""One module an experiment: its report's headline and sections."""
