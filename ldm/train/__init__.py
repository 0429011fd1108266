"""Training: one visible loop, two engines, checkpoints that survive anything, honest log lines."""
