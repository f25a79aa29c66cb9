"""The model that is trained: the built-in GPT, its data, and how its layers become stages."""
