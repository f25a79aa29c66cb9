"""The timeline of a step: as text, as a picture, as a trace file."""
