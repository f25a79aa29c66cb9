"""What runs inside a rank: its device, its stages, its measurements and steps."""
