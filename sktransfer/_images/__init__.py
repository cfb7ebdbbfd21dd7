"""What a user calls images, turned into RGB: read `_collection` first, then `_decoding`."""
