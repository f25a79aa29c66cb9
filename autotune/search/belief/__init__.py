"""The belief: one joint posterior over every candidate's step and the machine's drift."""
