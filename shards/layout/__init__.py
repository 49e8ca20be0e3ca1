"""Layouts: where the files of a public set lie and what its tables say, as YAML (configs/layout), and the engine that reads it.

schema.py     what a layout may say; unknown keys are refused
files.py      layouts by name or path
rows.py       tables and lists of files as rows, joined
places.py     which file a row means; files that are missing, packed, doubled or in no table
answers.py    labels from cells
texts.py      texts from cells and text files
long.py       long tables, such as mutations, as vectors
drawn.py      masks from run lengths, boxes from rows, pictures in other containers as PNG
pictures.py   files of a field as what a shard holds
dicom.py      DICOM films as PNG (extra `dicom`)
published.py  splits as they were published
begun.py      what a killed command had converted
engine.py     all of it together: a manifest
sourced.py    layouts that name a source in Python, for what YAML cannot say
describe.py   the list of layouts in docs/layouts.md
"""
