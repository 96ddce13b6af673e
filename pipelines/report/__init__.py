"""Reports: a page that shows what a selection kept and dropped and why, the same page live, and its funnel as numbers.

Tables → ``judged`` → ``funnel``, ``scores``, ``samples``, ``lineage`` → ``gather`` (``ReportData``) → ``page``,
which ``live`` serves.
"""

from dailies.pipelines.report.data import Amount, Funnel, FunnelStep, ReportData
from dailies.pipelines.report.funnel import stats
from dailies.pipelines.report.gather import gather
from dailies.pipelines.report.live import Serving, serve
from dailies.pipelines.report.page import render, write_report

__all__ = [
    "Amount",
    "Funnel",
    "FunnelStep",
    "ReportData",
    "Serving",
    "gather",
    "render",
    "serve",
    "stats",
    "write_report",
]
