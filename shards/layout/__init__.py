"""Layouts: where the files of a public set lie and what its tables say, as YAML (configs/layout), and the engine that reads it.

schema.py    what a layout may say; unknown keys are refused
rows.py      tables and lists of files as rows, joined
places.py    which file a row means; files that are missing, packed, doubled or in no table
answers.py   labels from cells
drawn.py     masks from run lengths, boxes from rows, pictures in other containers as PNG
dicom.py     DICOM films as PNG (extra `dicom`)
engine.py    all of it together: a manifest
describe.py  the list of layouts in docs/layouts.md
"""
