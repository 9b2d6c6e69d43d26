"""What the commands do, one module a verb: a session in, a frozen result out. Nothing here prints."""
