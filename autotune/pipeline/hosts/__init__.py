"""A pipeline over several hosts: the rendezvous, the worker on each, and what they say to each other. No torch."""
