"""Long runs against files that lie and systems that fail: `python -m tests.fuzz`, `python -m tests.fuzz.kills`."""
