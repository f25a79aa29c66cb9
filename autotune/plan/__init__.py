"""No devices: far more ranks than were measured, other networks, batch ramps."""
