"""What training commands print: their step times, losses and memory, read from logs."""
