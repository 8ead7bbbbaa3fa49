"""The report of a soak: one self-contained HTML page with plots, or short Markdown for a chat.

The page refers to nothing outside itself and runs no script; all that comes from a host (names of containers and
services, messages, titles of issues) is escaped. Drawn by our own code: pygal 3.1.3 was looked at (630 KiB and
0.2 s a plot of 4 x 600 points, a script from the network in every plot unless told otherwise, and one more
pinned package on the server) against the 150 lines of ``chart``.
"""

from .collecting import Report, read_report
from .markdown import markdown_report
from .page import html_report

__all__ = ["Report", "html_report", "markdown_report", "read_report"]
