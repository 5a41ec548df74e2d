"""Texts to padded token ids, through a `tokenizers` file that travels with the weights."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import tokenizers
import torch
import transformers

from maskfree.files.atomic import read_json, read_text
from maskfree.files.hugging_face import reading
from maskfree.types import Tokens

MAX_BYTES = 2**26
"""The largest tokenizer.json that is read; SigLIP 2's, of 256,000 words, has half of it."""
_MAX_GROWTH = 64  # of a text by the replacements of a normalizer, one after the other
_WORD_LISTS = ("tokenizer.json", "vocab.json", "vocab.txt", "tokenizer.model")
_COMPANIONS = (
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
)
_CLASSES = (
    "CLIPTokenizer",
    "BertTokenizer",
    "GemmaTokenizer",
    "PreTrainedTokenizer",
    "Siglip2Tokenizer",
)
_MASK_NAMES = ("[MASK]", "<mask>")
_UNKNOWN = "[UNK]"
_BEYOND_LATIN = 0x370  # the first letters of Greek; before it are Latin ones and their accents
_PADDING_NAMES = ("[PAD]", "<pad>", "<|endoftext|>")


class Tokenizer:
    """A trained tokenizer with a fixed longest text; calling it gives padded tokens. Picklable."""

    def __init__(self, tokenizer: tokenizers.Tokenizer, max_length: int = 77):
        self._tokenizer = tokenizer
        self._padding_id = _padding_id(tokenizer)
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(max_length)
        self.max_length = max_length

    @classmethod
    def from_source(cls, source: str, max_length: int = 77) -> Tokenizer:
        """Read the tokenizer of a folder, or of a Hugging Face name, and cut its texts to MAX_LENGTH tokens.

        Raises:
            FileNotFoundError: SOURCE is neither.
        """
        path = Path(source) / "tokenizer.json"
        if path.is_file():
            return cls(_read(path), max_length)
        if Path(source).is_dir() and not any(
            (Path(source) / name).is_file() for name in _WORD_LISTS
        ):
            raise FileNotFoundError(
                f"no tokenizer in {source!r}: it has none of {', '.join(_WORD_LISTS)}"
            )
        with reading(source) as local:
            try:
                _check_companions(Path(source))
                # No program that comes with a tokenizer is run, and nobody is asked whether to.
                options = {"use_fast": True, "trust_remote_code": False, "local_files_only": local}
                fast = transformers.AutoTokenizer.from_pretrained(source, **options)
            except Exception as error:  # damaged files lead to errors of all kinds
                raise FileNotFoundError(
                    f"no tokenizer in {source!r}: give a folder or a Hugging Face name"
                ) from error
        if fast.get_vocab().keys() <= set(
            fast.all_special_tokens
        ):  # what transformers makes of a model without one
            raise FileNotFoundError(
                f"no tokenizer in {source!r}: there are weights, but no words that they know"
            )
        return cls(fast.backend_tokenizer, max_length)

    @classmethod
    def from_file(cls, path: Path) -> Tokenizer:
        """Read what `save` wrote, with the longest text that it records.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is not a tokenizer.
        """
        tokenizer = _read(path)
        return cls(tokenizer, tokenizer.truncation["max_length"] if tokenizer.truncation else 77)

    def save(self, path: Path) -> None:
        """Write one JSON file that `from_file` reads."""
        path.write_text(self._tokenizer.to_str(), encoding="utf-8")

    @property
    def vocabulary_size(self) -> int:
        """One more than the largest id that a text can have, special tokens included."""
        special = self._tokenizer.encode(
            ""
        ).ids  # these have ids of their own, which the vocabulary need not hold
        return 1 + max(
            (*self._tokenizer.get_vocab().values(), *special, self._padding_id), default=-1
        )

    @property
    def mask_token(self) -> str:
        """The text that stands for one hidden word.

        Raises:
            ValueError: the tokenizer has none, as CLIP's.
        """
        return self._mask[0]

    @property
    def mask_id(self) -> int:
        """The id of `mask_token`.

        Raises:
            ValueError: the tokenizer has none.
        """
        return self._mask[1]

    @property
    def _mask(self) -> tuple[str, int]:
        for name in _MASK_NAMES:
            number = self._tokenizer.token_to_id(name)
            # To be in the vocabulary is not enough: what is no special token is split where a text holds it.
            if number is not None and self._tokenizer.encode(
                name, add_special_tokens=False
            ).ids == [number]:
                return name, number
        raise ValueError(
            f"the tokenizer has no mask token, {' or '.join(_MASK_NAMES)}: take one of BERT's kind"
        )

    def unknown(self, text: str) -> tuple[str, ...]:
        """Return the parts of TEXT that the tokenizer has no piece of; one of bytes, as CLIP's, has all."""
        return tuple(part for part, known in self._parts(text) if not known)

    def knows(self, text: str) -> bool:
        """Return whether the tokenizer has a piece of TEXT, beside punctuation if that is not all of it."""
        parts = self._parts(text)
        if all(known for _, known in parts):
            return bool(parts)
        return any(known and any(map(str.isalnum, part)) for part, known in parts)

    def _parts(self, text: str) -> list[tuple[str, bool]]:
        """The parts that TEXT is split into, each with whether the tokenizer has a piece of it."""
        unknown = self._tokenizer.token_to_id(
            getattr(self._tokenizer.model, "unk_token", None) or _UNKNOWN
        )
        found = self._tokenizer.encode(text, add_special_tokens=False)
        places = zip(found.ids, found.offsets, strict=True)
        return [(text[start:end], number != unknown) for number, (start, end) in places]

    def spells(self, text: str) -> bool:
        """Return whether TEXT, of another script than Latin, has no pieces but its single letters.

        A tokenizer of words has the letters of many scripts without knowing a word of them. One whose pieces are mostly
        single letters, as those of Chinese, does not count.
        """
        if (
            not isinstance(self._tokenizer.model, tokenizers.models.WordPiece)
            or self._is_of_letters
        ):
            return False
        pieces = map(self._letters, self._tokenizer.encode(text, add_special_tokens=False).tokens)
        foreign = [
            piece for piece in pieces if piece.isalpha() and max(map(ord, piece)) >= _BEYOND_LATIN
        ]
        return bool(foreign) and all(len(piece) == 1 for piece in foreign)

    @property
    def _is_of_letters(self) -> bool:
        pieces = self._tokenizer.get_vocab()
        return sum(len(self._letters(piece)) == 1 for piece in pieces) > len(pieces) / 4

    def _letters(self, piece: str) -> str:
        return piece.removeprefix(self._tokenizer.model.continuing_subword_prefix)

    def __call__(self, texts: Sequence[str]) -> Tokens:
        """Tokenize a batch, padded to its longest text."""
        # One by one: encode_batch starts threads, which data workers must not fork over.
        rows = [self._tokenizer.encode(text).ids or [self._padding_id] for text in texts]
        longest = max(map(len, rows), default=0)
        ids = torch.tensor(
            [row + [self._padding_id] * (longest - len(row)) for row in rows], dtype=torch.long
        )
        lengths = torch.tensor([len(row) for row in rows], dtype=torch.long)
        return Tokens(ids.reshape(len(rows), longest), torch.arange(longest) < lengths[:, None])


def _read(path: Path) -> tokenizers.Tokenizer:
    if not path.is_file():
        raise FileNotFoundError(f"no tokenizer file {path}")
    text = read_text(path, MAX_BYTES)
    try:
        tokenizer = tokenizers.Tokenizer.from_str(text)
        _check_growth(tokenizer)
        tokenizer.encode("")
    except (KeyboardInterrupt, SystemExit):
        raise
    except (
        BaseException
    ) as error:  # the library raises bare Exception, and what it did not foresee is not even that
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(f"{path} is not a tokenizer file: {reason}") from error
    return tokenizer


def _check_growth(tokenizer: tokenizers.Tokenizer) -> None:
    """Raise ValueError where replacements make texts so long that they fill all memory."""
    if tokenizer.normalizer is None:
        return
    growth = 1
    waiting = [json.loads(tokenizer.normalizer.__getstate__())]
    while waiting:
        part = waiting.pop()
        waiting += part.get("normalizers", [])
        growth *= max(1, len(part.get("content") or ""))
        if growth > _MAX_GROWTH:
            raise ValueError(f"its normalizer makes texts over {_MAX_GROWTH} times as long")


def _check_companions(folder: Path) -> None:
    """Raise ValueError where files that describe a folder's tokenizer are damaged, or name a program."""
    for name in _COMPANIONS:
        if (folder / name).is_file():
            content = read_json(folder / name, MAX_BYTES)
            kind = content.get("tokenizer_class") if isinstance(content, dict) else None
            if not isinstance(content, dict) or "auto_map" in content:
                raise ValueError(f"{folder / name} is no description of a tokenizer")
            if kind is not None and str(kind).removesuffix("Fast") not in _CLASSES:
                raise ValueError(
                    f"{folder / name} names the tokenizer {kind!r}: {', '.join(_CLASSES)} are read"
                )


def _padding_id(tokenizer: tokenizers.Tokenizer) -> int:
    if tokenizer.padding:
        return int(tokenizer.padding["pad_id"])
    ids = (tokenizer.token_to_id(name) for name in _PADDING_NAMES)
    return next((i for i in ids if i is not None), 0)
