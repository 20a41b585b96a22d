"""Reports of comparisons, advice and runs: one self-contained page, and pictures for papers and slides."""

from backbeat.report.advice_picture import advice_figure
from backbeat.report.fragment import advice_fragment, comparison_fragment, run_fragment, verification_fragment
from backbeat.report.page import page, write_page
from backbeat.report.pictures import comparison_figure, run_figure, save_figure

__all__ = [
    "advice_figure",
    "advice_fragment",
    "comparison_figure",
    "comparison_fragment",
    "page",
    "run_figure",
    "run_fragment",
    "save_figure",
    "verification_fragment",
    "write_page",
]
