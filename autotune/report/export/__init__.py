"""From a report to a launcher: its own flags, or its own config file."""
