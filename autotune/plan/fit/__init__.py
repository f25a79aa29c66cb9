"""The cost model learned from whole steps that were timed elsewhere: no stage, no device, only what runs took."""
