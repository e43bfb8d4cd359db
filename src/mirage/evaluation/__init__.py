"""How well a world stays put: measured on exact worlds and real places, with controls and confidence intervals."""

from mirage.evaluation.closed_loop import ClosedLoop as ClosedLoop
from mirage.evaluation.closed_loop import evaluate as evaluate
from mirage.evaluation.closed_loop import format_table as format_table
