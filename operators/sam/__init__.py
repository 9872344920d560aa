"""The SAM family: generalists that segment what a prompt shows them, without torch.

A slice goes through an encoder once; each prompt on it then goes through a small decoder. ``contract.py`` says as data
what each variant wants and gives; all that is here follows it.
"""
