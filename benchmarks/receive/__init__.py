"""Limner's receive path beside Orthanc, DCMTK's storescp and plain pynetdicom: `make bench-receive`."""
