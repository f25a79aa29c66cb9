"""The Profile record, and measuring it on live ranks."""
