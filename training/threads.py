"""torch's number of threads on the CPU follows the load: see ``dailies.curation.cores``.

Sums come out the same to the last bit as long as the number stays the same: always on a machine that does nothing else,
and with ``OMP_NUM_THREADS`` set on any.
"""

from __future__ import annotations

import torch

from dailies.curation.cores import Follower

THREADS = Follower(torch.get_num_threads, torch.set_num_threads)
