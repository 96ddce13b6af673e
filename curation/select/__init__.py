"""Select: rules, caps, balance and samples over columns → verdicts with reasons. Nothing is recomputed.

``select`` judges a table in memory; ``judging`` whatever tables DuckDB can read, out of core, and streams the verdicts.
Rules are turned into SQL that is made here alone: of a recipe's texts only names, numbers and words get into it, each
quoted (see ``expressions``).
"""

from dailies.curation.select.computed import columns_read, computed_values
from dailies.curation.select.facts import SPLIT, Unjudged
from dailies.curation.select.judge import Judgement, judging, select
from dailies.curation.select.manifest import check_manifest_columns, column_values
from dailies.curation.select.preview import Falling, LimitPreview, Previewed, preview
from dailies.curation.select.rules import (
    UNUSABLE,
    Balance,
    Cap,
    ClipSample,
    Criteria,
    Rule,
    check_rules,
    needs_numbers,
)
from dailies.curation.select.source import ClipRows

__all__ = [
    "SPLIT",
    "UNUSABLE",
    "Balance",
    "Cap",
    "ClipRows",
    "ClipSample",
    "Criteria",
    "Falling",
    "Judgement",
    "LimitPreview",
    "Previewed",
    "Rule",
    "Unjudged",
    "check_manifest_columns",
    "check_rules",
    "column_values",
    "columns_read",
    "computed_values",
    "judging",
    "needs_numbers",
    "preview",
    "select",
]
