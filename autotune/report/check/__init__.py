"""autotune check: a new report against a baseline; what is comparable, whether it is worse, whether one can tell."""
