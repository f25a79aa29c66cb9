"""Any bytes, given to the parsers of config, profile, report and schedule: ``make fuzz``."""
