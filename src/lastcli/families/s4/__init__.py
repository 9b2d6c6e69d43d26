"""The layers of the S4 repository and their copies: S4 (diagonal and DPLR), S4D and DSS."""
