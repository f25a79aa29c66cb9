"""The inside of a rank: its device, its stages, its measurements and steps."""
