"""From a checkpoint to smaller layers: which states stay, and what those that stay say."""
