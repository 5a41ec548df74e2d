"""Text processing: vocabularies, prompts, tokenizers, nouns and entities of captions."""
