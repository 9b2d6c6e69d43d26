"""Text as tokens: a `.txt` file through the `tokenizer.json` beside a model, cut into sequences of one length.

The tokenizers library (extra `text`) reads what Hugging Face writes; nothing in such a file is executed.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lastcli.errors import InputError
from lastcli.evaluation.readers.base import Found, Reader, Request, missing_library, read_text

__all__ = ["LENGTH", "READER", "load_text", "read"]

LENGTH = 512
"""Tokens of a sequence; what is left at the end of a text is one shorter sequence."""


def read(request: Request) -> Found:
    """See `Reader.read`; the tokenizer is that of the model's folder, else the one beside the text."""
    request.refuse_part("text")
    request.refuse_columns("text")
    folder = request.path.parent if request.beside is None else request.beside()
    return load_text(request.path, folder / "tokenizer.json")


def load_text(path: Path, tokenizer: Path, *, length: int = LENGTH) -> Found:
    """The tokens (n, length) of a text, without labels: the label of a step is the next token.

    Raises:
        InputError: a file is missing or damaged, or there are fewer than two tokens.
        UsageError: the tokenizers library is not installed.
    """
    try:
        from tokenizers import Tokenizer
    except ImportError:
        raise missing_library(path, "text", "tokenizers", "text") from None
    if not tokenizer.is_file():
        raise InputError(
            f"{path} is text, and there is no {tokenizer} to read it with; put the model's tokenizer.json beside its "
            "tensors, or give the tokens as an .npz file."
        )
    text = read_text(path)
    try:
        model = Tokenizer.from_file(str(tokenizer))
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
    return Found(x.reshape(count, length), lengths=lengths if lengths[-1] < length else None)


READER = Reader("text", read, suffixes=(".txt",), extra="text")
