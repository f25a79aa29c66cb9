"""What a job is made of: its machine, its model, and how that is cut into stages and recomputed."""
