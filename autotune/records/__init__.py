"""Every record that more than one part reads or writes: JSON in, JSON out, no torch."""
