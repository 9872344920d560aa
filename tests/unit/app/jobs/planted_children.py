"""What a child process of a test does."""

from __future__ import annotations

from multiprocessing.connection import Connection

import numpy as np
import psutil


def count_threads(connection: Connection, _lifeline: Connection) -> None:
    """Say how many threads there are after a large product of matrices."""
    matrix = np.ones((800, 800), np.float32)
    product = matrix @ matrix
    connection.send((float(product[0, 0]), psutil.Process().num_threads()))
