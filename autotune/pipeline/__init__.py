"""The real thing: device seam, rank processes, and torch.distributed.pipelining runs."""
