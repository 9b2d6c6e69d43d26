"""Mega: the damped moving average and the published models around it."""
