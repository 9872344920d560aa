"""Prompts for a generalist out of DICOM objects: what a viewer stored in a PACS shows where to segment.

`reading.read_prompts` turns one data set into a `prompt_object.PromptObject`: what is wanted, and what was drawn for
it, in the pixels of an image or in the patient. `placing.place` brings that onto the slices of a series, by the rules
of `slice_prompts`. `labels.prompt_from_mask` does the same for a slice of another model's result, which lies on the
series' grid already. The page ``docs/reference/prompts.md`` says which graphic becomes what.
"""
