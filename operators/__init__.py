"""The image path: from the instances of a series to a segmentation. It knows arrays and data sets, never the server."""
