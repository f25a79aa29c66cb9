"""The device seam: what a rank asks of the GPU or CPU that it runs on, and nothing else does."""
