"""The equinox model that LinOSS, LRU and S5 layers share."""
