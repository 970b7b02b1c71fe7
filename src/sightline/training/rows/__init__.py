"""The rows of a run: loaded, split into training and validation, and tokenised.

``load_examples(sources, columns, …) -> list[Example]``; ``split(prompt_hashes, wanted, seed) -> mask``;
``tokenise(examples, tokenizer, Tokenisation(…)) -> TokenisedRows`` with ``select``, ``to_dataset()``, ``lengths``,
``label_counts``; a ``TokenisedRow`` has ``input_ids``, ``labels`` and ``prompt_hash``.
"""

from sightline.training.rows.example import Example, normalised, prompt_hash
from sightline.training.rows.loading import load_examples
from sightline.training.rows.shapes import Columns
from sightline.training.rows.splitting import split, validation_rows
from sightline.training.rows.tokenised import IGNORED, TokenisedRow, TokenisedRows
from sightline.training.rows.tokenising import Tokenisation, tokenise

__all__ = [
    "IGNORED",
    "Columns",
    "Example",
    "Tokenisation",
    "TokenisedRow",
    "TokenisedRows",
    "load_examples",
    "normalised",
    "prompt_hash",
    "split",
    "tokenise",
    "validation_rows",
]
