"""Labeled data sets: from a folder of photos and a word list to files that people train on."""
