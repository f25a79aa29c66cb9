"""Somebody's training command: filled in, started, read while it runs, ended, and what became of it."""
