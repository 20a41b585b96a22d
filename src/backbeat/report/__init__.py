"""Reports of comparisons, advice and runs: one self-contained page, and pictures for papers and slides."""

from backbeat.report.advice_picture import advice_figure
from backbeat.report.page import page, write_page
from backbeat.report.pictures import comparison_figure, run_figure, save_figure

__all__ = ["advice_figure", "comparison_figure", "page", "run_figure", "save_figure", "write_page"]
