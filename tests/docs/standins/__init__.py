"""What the pages import, where the projects themselves are not installed: their constructors with the parameter names
and shapes that they register, written from the papers and docs/families, so that a page's code can be run.

`LAST_UPSTREAM=FOLDER` (see `tests.docs.upstream`) runs the same pages against the projects' own code.
"""
