"""The objects that say what a model found: each kind of DICOM object that a receiver may want, from one finding."""
