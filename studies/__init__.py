"""The papers' own studies, run again on the data at hand: one file per paper."""
