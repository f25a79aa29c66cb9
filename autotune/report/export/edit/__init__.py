"""A user's own config file, of which only the lines of our keys change: where keys lie, and what is spliced in."""
