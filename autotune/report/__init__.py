"""Everything that people and launchers read: the report record, its file, its table."""
