"""Text as tokens: a `.txt` file through the `tokenizer.json` beside a model, cut into sequences of one length.

The tokenizers library (extra `text`) reads what Hugging Face writes; nothing in such a file is executed.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lastcli.errors import InputError, UsageError
from lastcli.evaluation.data import Split

__all__ = ["LENGTH", "is_text", "load_text"]

LENGTH = 512
"""Tokens of a sequence; what is left at the end of a text is one shorter sequence."""

SIZE_LIMIT = 1 << 30


def is_text(path: Path) -> bool:
    """Whether a data file is text by its name."""
    return path.suffix.lower() == ".txt"


def load_text(path: Path, tokenizer: Path, *, length: int = LENGTH) -> Split:
    """The tokens (n, length) of a text, without labels: the label of a step is the next token.

    Raises:
        InputError: a file is missing or damaged, or there are fewer than two tokens.
        UsageError: the tokenizers library is not installed.
    """
    try:
        from tokenizers import Tokenizer
    except ImportError:
        raise UsageError(
            "Text needs the tokenizers library: pip install 'lastcli[text]'; or give the tokens as an .npz file."
        ) from None
    if not tokenizer.is_file():
        raise InputError(
            f"{path} is text, and there is no {tokenizer} to read it with; put the model's tokenizer.json beside its "
            "tensors, or give the tokens as an .npz file."
        )
    try:
        if path.stat().st_size > SIZE_LIMIT:
            raise InputError(f"{path}: larger than 1 GiB; give a part of it.")
        text = path.read_text(encoding="utf-8")
        model = Tokenizer.from_file(str(tokenizer))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: could not be read as UTF-8 text ({error}).") from error
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"{tokenizer}: is no tokenizer that the tokenizers library reads ({error}).") from error
    ids = np.asarray(model.encode(text, add_special_tokens=False).ids, np.int32)
    if len(ids) < 2:
        raise InputError(f"{path} has {len(ids)} tokens; a next token to predict takes two.")
    length = min(length, len(ids))
    count = -(-len(ids) // length)
    x = np.zeros(count * length, np.int32)
    x[: len(ids)] = ids
    lengths = np.full(count, length, np.int32)
    lengths[-1] = len(ids) - (count - 1) * length
    return Split(x.reshape(count, length), lengths=lengths if lengths[-1] < length else None, name=str(path))
