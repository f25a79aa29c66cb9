"""What people read of figures that no run has measured: predictions, fits, plans, scales and ramps."""
