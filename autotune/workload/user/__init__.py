"""A model of the user's: found by its name, built without its other stages, cut at its layers."""
