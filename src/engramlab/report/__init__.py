"""Reports from run folders: a self-contained HTML page and a table in the terminal.

Everything here reads rows that a run has already written; nothing trains, loads or scores a model.
"""

from engramlab.report.page import write_report
from engramlab.report.terminal import print_summary, print_tables

__all__ = ["print_summary", "print_tables", "write_report"]
