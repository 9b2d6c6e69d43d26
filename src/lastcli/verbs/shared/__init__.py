"""What several verbs need: the session, its files, measuring, searching, rebuilding, matching and certificates."""
