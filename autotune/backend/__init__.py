"""What runs candidates: ranks that compute, ranks that replay a recorded profile, a simulation of them."""
