"""flax msgpack, as `flax.serialization` writes it."""
