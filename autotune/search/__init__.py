"""Which candidates are tried, in which order, when to stop, and which one wins."""
