"""A schedule and the seconds of its actions -> when every action starts and ends."""
