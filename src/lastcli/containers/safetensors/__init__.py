"""safetensors: one file, or a folder of shards with its index."""
