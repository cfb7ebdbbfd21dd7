"""Which strategy suits the images: read `_candidates` first, then `_race`."""
