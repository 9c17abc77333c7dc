"""Networks with exits: encoders, residual networks, heads, recording, live inference, FLOPs."""
