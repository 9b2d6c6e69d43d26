"""S4D written anew with a complex state matrix, as many stand-alone copies have it."""
