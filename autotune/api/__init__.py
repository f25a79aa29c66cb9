"""The interface for Python programs: the functions that ``autotune`` shows, and the timer of a user's own stages. They
print nothing, and raise what is in ``autotune.errors``."""
