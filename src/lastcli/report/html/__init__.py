"""Results as one HTML file: no network, no scripts, pictures as inline SVG, every name from a file escaped.

* `page`: the document; which sections a result has, and in which order.
* `markup`, `svg`: elements whose text cannot become markup; scales, ticks and markers.
* one module a section: `curves`, `profiles`, `states`, `poles`, `energies`, `costs`, `tables`, `made`.
* `style.css`: light and dark, narrow and printed.
"""

from lastcli.report.html.page import as_html

__all__ = ["as_html"]
