"""The formats of logs, a file per family of launchers."""
