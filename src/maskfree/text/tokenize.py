"""Tokenizers: texts to padded token ids, with a `tokenizers` file saved beside the weights."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import tokenizers
import torch

from maskfree.files.hugging_face import reading
from maskfree.text.tokenizer_files import check_companions, padding_id, read_tokenizer
from maskfree.types import Tokens

_WORD_LISTS = ("tokenizer.json", "vocab.json", "vocab.txt", "tokenizer.model")
_MASK_NAMES = ("[MASK]", "<mask>")
_UNKNOWN = "[UNK]"
# The bundled model's tokenizer is BERT's, whose words MiniLM has kept.
_BERT = Path(__file__).parents[1] / "pocket" / "tokenizer.json"
_WITH_PACKAGE = {"bert-base-uncased": _BERT, "google-bert/bert-base-uncased": _BERT}
_BEYOND_LATIN = 0x370  # start of the Greek block; before it are Latin letters and diacritics


class Tokenizer:
    """Trained tokenizer with a maximum length; calling it gives padded tokens. Picklable.

    Args:
        tokenizer: Tokenizer of the library `tokenizers`; its padding and truncation are replaced.
        max_length: Number of tokens to which texts are truncated.
    """

    def __init__(self, tokenizer: tokenizers.Tokenizer, max_length: int = 77):
        self._tokenizer = tokenizer
        self._padding_id = padding_id(tokenizer)
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(max_length)
        self.max_length = max_length

    @classmethod
    def from_source(cls, source: str, max_length: int = 77) -> Tokenizer:
        """Load the tokenizer of a folder or of a Hugging Face model.

        Args:
            source: Folder, or Hugging Face name.
            max_length: Number of tokens to which texts are truncated.

        Returns:
            The tokenizer.

        Raises:
            FileNotFoundError: The source is neither, or has no tokenizer.
        """
        # A local tokenizer.json needs no help of transformers.
        path = Path(source) / "tokenizer.json"
        if source in _WITH_PACKAGE and not Path(source).exists():
            path = _WITH_PACKAGE[source]
        if path.is_file():
            return cls(read_tokenizer(path), max_length)
        has_words = any((Path(source) / name).is_file() for name in _WORD_LISTS)
        if Path(source).is_dir() and not has_words:
            raise FileNotFoundError(
                f"no tokenizer in {source!r}: it has none of {', '.join(_WORD_LISTS)}"
            )

        # Imported here, since a tokenizer.json does without.
        import transformers

        with reading(source) as local:
            try:
                check_companions(Path(source))
                # Never run code that comes with a tokenizer, and never prompt for it.
                options = {"use_fast": True, "trust_remote_code": False, "local_files_only": local}
                fast = transformers.AutoTokenizer.from_pretrained(source, **options)
            except Exception as error:  # damaged files lead to errors of all kinds
                raise FileNotFoundError(
                    f"no tokenizer in {source!r}: give a folder or a Hugging Face name"
                ) from error

        # transformers makes up a tokenizer of special tokens for a model without one.
        if fast.get_vocab().keys() <= set(fast.all_special_tokens):
            raise FileNotFoundError(
                f"no tokenizer in {source!r}: there are weights, but no words that they know"
            )

        return cls(fast.backend_tokenizer, max_length)

    @classmethod
    def from_file(cls, path: Path) -> Tokenizer:
        """Read a file that `save` wrote, with its maximum length.

        Args:
            path: The JSON file.

        Returns:
            The tokenizer; its maximum length is 77 if the file records none.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: The file is not a tokenizer.
        """
        tokenizer = read_tokenizer(path)
        if tokenizer.truncation is None:
            return cls(tokenizer)
        return cls(tokenizer, tokenizer.truncation["max_length"])

    def save(self, path: Path) -> None:
        """Write one JSON file that `from_file` reads.

        Args:
            path: The file to write.
        """
        path.write_text(self.serialized(), encoding="utf-8")

    def serialized(self) -> str:
        """Return the content of the file that `save` writes.

        Returns:
            JSON of vocabulary and settings.
        """
        return self._tokenizer.to_str()

    def lower_case(self) -> Tokenizer:
        """Copy the tokenizer so that it takes upper-case letters as lower case.

        Returns:
            The copy, or the tokenizer itself if it ignores case already.
        """
        own = self._tokenizer.normalizer
        if own is not None and own.normalize_str("A") == own.normalize_str("a"):
            return self

        copy = tokenizers.Tokenizer.from_str(self._tokenizer.to_str())
        steps: list[tokenizers.normalizers.Normalizer] = [tokenizers.normalizers.Lowercase()]
        if own is not None:
            steps.append(own)
        copy.normalizer = tokenizers.normalizers.Sequence(steps)  # pyright: ignore[reportAttributeAccessIssue]

        return Tokenizer(copy, self.max_length)

    @property
    def vocabulary_size(self) -> int:
        """Size of the embedding table that the tokens need.

        Returns:
            One more than the largest id that a text can have, including special tokens.
        """
        # Special tokens may have ids that the vocabulary does not hold.
        special = self._tokenizer.encode("").ids
        return 1 + max(
            (*self._tokenizer.get_vocab().values(), *special, self._padding_id), default=-1
        )

    @property
    def mask_token(self) -> str:
        """Text of the mask token.

        Returns:
            The token, such as "[MASK]".

        Raises:
            ValueError: The tokenizer has none, as that of CLIP.
        """
        return self._mask[0]

    @property
    def mask_id(self) -> int:
        """Id of the mask token.

        Returns:
            The id of `mask_token`.

        Raises:
            ValueError: The tokenizer has none.
        """
        return self._mask[1]

    @property
    def _mask(self) -> tuple[str, int]:
        """Text and id of the mask token."""
        for name in _MASK_NAMES:
            number = self._tokenizer.token_to_id(name)
            encoded = self._tokenizer.encode(name, add_special_tokens=False)
            # A vocabulary entry is not enough: only special tokens are never split.
            if number is not None and encoded.ids == [number]:
                return name, number

        raise ValueError(
            f"the tokenizer has no mask token, {' or '.join(_MASK_NAMES)}: take one of BERT's kind"
        )

    def unknown(self, text: str) -> tuple[str, ...]:
        """Parts of a text that the tokenizer has no token for.

        Args:
            text: Any text.

        Returns:
            The unknown parts; always empty for a byte-level tokenizer, as that of CLIP.
        """
        return tuple(part for part, known in self._parts(text) if not known)

    def knows(self, text: str) -> bool:
        """Whether the tokenizer has a token for some part of a text other than punctuation.

        Args:
            text: Any text.

        Returns:
            True if a part with a letter or digit is known, or if all parts are known and there is
            one.
        """
        parts = self._parts(text)
        if all(known for _, known in parts):
            return bool(parts)
        return any(known and any(map(str.isalnum, part)) for part, known in parts)

    def _parts(self, text: str) -> list[tuple[str, bool]]:
        """Parts of a text, each with whether the tokenizer has a token for it."""
        unknown = self._tokenizer.token_to_id(
            getattr(self._tokenizer.model, "unk_token", None) or _UNKNOWN
        )
        found = self._tokenizer.encode(text, add_special_tokens=False)

        parts = []
        for number, (start, end) in zip(found.ids, found.offsets, strict=True):
            parts.append((text[start:end], number != unknown))
        return parts

    def spells(self, text: str) -> bool:
        """Whether a text of a non-Latin script is split into single letters.

        A WordPiece tokenizer has the letters of many scripts without knowing a word of them. The
        result is False for a tokenizer with many single-letter tokens, as those for Chinese.

        Args:
            text: Any text.

        Returns:
            True if it has non-Latin tokens and each is a single letter.
        """
        if (
            not isinstance(self._tokenizer.model, tokenizers.models.WordPiece)
            or self._is_of_letters
        ):
            return False

        # Only pieces with letters beyond the Latin ones count.
        lengths = set()
        for token in self._tokenizer.encode(text, add_special_tokens=False).tokens:
            piece = self._letters(token)
            if piece.isalpha() and max(map(ord, piece)) >= _BEYOND_LATIN:
                lengths.add(len(piece))
        return lengths == {1}

    @cached_property
    def _is_of_letters(self) -> bool:
        """Whether more than a quarter of the tokens are single letters."""
        pieces = self._tokenizer.get_vocab()
        lengths = [len(self._letters(piece)) for piece in pieces]
        return lengths.count(1) > len(pieces) / 4

    def _letters(self, piece: str) -> str:
        """A token without the prefix of continued words."""
        return piece.removeprefix(self._tokenizer.model.continuing_subword_prefix)

    def __call__(self, texts: Sequence[str]) -> Tokens:
        """Tokenize a batch of texts.

        Args:
            texts: The texts.

        Returns:
            Token ids and their mask, padded to the longest text.
        """
        # One by one, since encode_batch starts threads and data workers fork.
        rows = [self._tokenizer.encode(text).ids or [self._padding_id] for text in texts]
        lengths = torch.tensor(list(map(len, rows)), dtype=torch.long)
        longest = max(map(len, rows), default=0)
        padded = [row + [self._padding_id] * (longest - len(row)) for row in rows]
        ids = torch.tensor(padded, dtype=torch.long).view(len(rows), longest)

        # The mask is True at tokens and False at padding.
        return Tokens(ids, torch.arange(longest) < lengths[:, None])
