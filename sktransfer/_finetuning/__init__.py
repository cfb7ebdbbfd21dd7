"""What is trained, and how: read `_network` first, then `_training`."""
